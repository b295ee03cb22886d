//! kinone-metrics
