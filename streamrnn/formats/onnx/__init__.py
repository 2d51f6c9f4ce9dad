"""ONNX graphs: read once, then run by our own kernels. Only reading needs the onnx package."""
