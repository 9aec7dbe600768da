"""The experiment binaries: thin programs that turn a config into specs, call the library and write files."""
