//! kinone-nn
