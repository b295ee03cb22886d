//! kinone-xray
