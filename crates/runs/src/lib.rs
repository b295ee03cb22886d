//! kinone-runs
