//! kinone-cli
