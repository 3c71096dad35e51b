"""The networks of the authors' released program (github.com/Leiii-Cao/Text-DiFuse)."""
