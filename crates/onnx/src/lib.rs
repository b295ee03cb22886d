//! kinone-onnx
