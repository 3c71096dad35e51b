"""From words to masks: prompts, localizers behind one protocol, and tracking between key frames."""
