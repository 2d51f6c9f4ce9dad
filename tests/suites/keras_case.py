"""Keras's TestCase with `run_layer_test` for layers of streamrnn, judged by Keras's own layers."""

import json
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras.src.testing.test_case import TestCase

import streamrnn
from streamrnn.nn.layers.structure import leaves, map_structure

TOLERANCE = {"rtol": 1e-5, "atol": 2e-5}


class Case(TestCase):  # type: ignore[misc]
    """The checks of Keras's run_layer_test that do not train, and Keras's numbers beside them."""

    def setUp(self) -> None:
        super().setUp()
        streamrnn.clear_session()

    def convert_to_numpy(self, x: Any) -> Any:
        return np.asarray(x)

    def run_class_serialization_test(self, instance: Any, custom_objects: Any = None) -> Any:
        """The config makes an equal object, also by way of JSON."""
        for name, cls in (custom_objects or {}).items():
            streamrnn.register_layer(name, cls)
        config = instance.get_config()
        revived = type(instance).from_config(json.loads(json.dumps(config)))
        assert json.dumps(config) == json.dumps(revived.get_config())
        return revived

    def run_layer_test(
        self,
        layer_cls: Any,
        init_kwargs: Mapping[str, Any],
        input_shape: Any = None,
        input_dtype: Any = None,
        input_sparse: bool = False,
        input_data: Any = None,
        call_kwargs: Mapping[str, Any] | None = None,
        expected_output_shape: Any = None,
        expected_output: Any = None,
        expected_num_trainable_weights: int | None = None,
        expected_num_non_trainable_weights: int | None = None,
        supports_masking: bool | None = None,
        custom_objects: Any = None,
        **other: Any,
    ) -> None:
        """Build, call on symbols and on arrays, config, shapes, weights; then Keras's numbers."""
        if input_sparse or other.get("input_ragged"):
            self.skipTest("sparse or ragged inputs")
        kwargs, calls = dict(init_kwargs), dict(call_kwargs or {})
        self.run_class_serialization_test(layer_cls(**kwargs), custom_objects)
        if input_shape is None and input_data is None:
            return
        data = _data(input_shape, input_dtype) if input_data is None else input_data
        if isinstance(data, dict):
            self.skipTest("inputs by name of a layer of several arguments")
        shape = map_structure(np.shape, data) if input_shape is None else input_shape
        built = layer_cls(**kwargs)
        built.build(shape)
        self._count(built, expected_num_trainable_weights, expected_num_non_trainable_weights)
        layer = layer_cls(**kwargs)
        symbols = map_structure(
            lambda x: streamrnn.Input(batch_shape=np.shape(x), dtype=_dtype(x)), data
        )
        outputs = layer(symbols, **calls)
        self._count(layer, expected_num_trainable_weights, expected_num_non_trainable_weights)
        self._shapes(expected_output_shape, outputs)
        if supports_masking is not None:
            assert layer.supports_masking == supports_masking
        layer = layer_cls(**kwargs)
        found = layer(data, **calls)
        self._shapes(expected_output_shape, found)
        if expected_output is not None:
            for one, other_one in zip(leaves(expected_output), leaves(found), strict=True):
                self.assertAllClose(one, other_one)
        self._as_keras(layer_cls, kwargs, calls, data)

    def _count(self, layer: Any, trainable: int | None, fixed: int | None) -> None:
        if trainable is not None:
            self.assertLen(layer.trainable_weights, trainable)
        if fixed is not None:
            self.assertLen(layer.non_trainable_weights, fixed)

    def _shapes(self, expected: Any, found: Any) -> None:
        if expected is None:
            return
        wanted = [expected] if _is_shape(expected) else list(expected)
        for shape, x in zip(wanted, leaves(found), strict=True):
            fits = len(shape) == len(x.shape) and all(
                None in (a, b) or a == b for a, b in zip(shape, x.shape, strict=True)
            )
            assert fits, f"output shape {x.shape}, expected {shape}"

    def _as_keras(self, layer_cls: Any, kwargs: Any, calls: Any, data: Any) -> None:
        """Keras's layer with the same weights gives the same numbers."""
        real = getattr(keras.layers, layer_cls.__name__, None)
        if real is None or not layer_cls.__module__.startswith("streamrnn"):
            return
        plain = (str, int, float, bool, list, tuple, dict, type(None))
        if not all(isinstance(value, plain) for value in kwargs.values()):
            return
        if calls.get("training"):
            return
        keras.utils.set_random_seed(1)
        peer, layer = real(**kwargs), layer_cls(**kwargs)
        expected = peer(data, **calls)
        layer(data, **calls)
        layer.set_weights(peer.get_weights())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = layer_cls(**kwargs)
            found(data, **calls)
            found.set_weights(peer.get_weights())
            if "stateful" in kwargs:
                expected = (peer.reset_state(), peer(data, **calls))[1]
            found = found(data, **calls) if not kwargs.get("stateful") else None
        if found is None:
            return
        for one, other in zip(leaves(expected), leaves(found), strict=True):
            np.testing.assert_allclose(np.asarray(other), np.asarray(one), **TOLERANCE)


def _is_shape(tree: Any) -> bool:
    return isinstance(tree, tuple) and all(n is None or isinstance(n, int) for n in tree)


def _dtype(x: Any) -> str:
    kind = np.asarray(x).dtype.kind
    return {"f": "float32", "U": "string", "O": "string", "b": "bool"}.get(kind, "int64")


def _data(shape: Any, dtype: Any) -> Any:
    if _is_shape(shape) or (isinstance(shape, list) and isinstance(shape[0], int)):
        return (np.random.default_rng(0).random(shape) * 3).astype(dtype or "float32")
    if isinstance(shape, dict):
        return {k: _data(v, (dtype or {}).get(k)) for k, v in shape.items()}
    dtypes = dtype if isinstance(dtype, list | tuple) else [dtype] * len(shape)
    return [_data(one, d) for one, d in zip(shape, dtypes, strict=True)]
