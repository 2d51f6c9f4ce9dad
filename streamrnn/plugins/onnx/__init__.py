"""ONNX graphs: read once, then run by streamrnn's kernels. Only reading needs the onnx package."""
