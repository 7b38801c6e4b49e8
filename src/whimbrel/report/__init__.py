"""Facts in, tables and charts out; no clock, no files, no configuration."""
