"""From words to masks: prompts, localisers behind one protocol, and tracking between key frames."""
