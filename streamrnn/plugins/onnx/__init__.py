"""ONNX graphs, which streamrnn's kernels run. Only reading and writing files need onnx."""
