"""The Keras guide to working with RNNs, cell by cell and in its order.

Each test runs one code cell with only the imports changed, and checks what the guide shows there.
The cells run once, in one namespace, as in a notebook.
"""

from types import SimpleNamespace

import numpy as np
import pytest

import streamrnn as keras
from streamrnn import clear_session, layers

BLANK = " " * 65
LINE = "_" * 65
DOUBLE = "=" * 65


class Notebook(SimpleNamespace):
    """What the cells leave behind, and what they printed."""


@pytest.fixture(scope="module")
def book() -> Notebook:
    """All cells, run once in the guide's order, with fresh automatic names."""
    clear_session()
    notebook = Notebook()
    for cell in (cell_2, cell_3, cell_4, cell_5, cell_6, cell_7):
        cell(notebook)
    return notebook


def printed(model: keras.Model) -> str:
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    return "\n".join(lines)


def cell_2(book: Notebook) -> None:
    model = keras.Sequential()
    # Add an Embedding layer expecting input vocab of size 1000, and
    # output embedding dimension of size 64.
    model.add(layers.Embedding(input_dim=1000, output_dim=64))

    # Add a LSTM layer with 128 internal units.
    model.add(layers.LSTM(128))

    # Add a Dense layer with 10 units.
    model.add(layers.Dense(10))

    book.first = model


def cell_3(book: Notebook) -> None:
    model = keras.Sequential()
    model.add(layers.Embedding(input_dim=1000, output_dim=64))

    # The output of GRU will be a 3D tensor of shape (batch_size, timesteps, 256)
    model.add(layers.GRU(256, return_sequences=True))

    # The output of SimpleRNN will be a 2D tensor of shape (batch_size, 128)
    model.add(layers.SimpleRNN(128))

    model.add(layers.Dense(10))

    book.second = model


def cell_4(book: Notebook) -> None:
    encoder_vocab = 1000
    decoder_vocab = 2000

    encoder_input = layers.Input(shape=(None,))
    encoder_embedded = layers.Embedding(input_dim=encoder_vocab, output_dim=64)(encoder_input)

    # Return states in addition to output
    output, state_h, state_c = layers.LSTM(64, return_state=True, name="encoder")(encoder_embedded)
    encoder_state = [state_h, state_c]

    decoder_input = layers.Input(shape=(None,))
    decoder_embedded = layers.Embedding(input_dim=decoder_vocab, output_dim=64)(decoder_input)

    # Pass the 2 states to a new LSTM layer, as initial state
    decoder_output = layers.LSTM(64, name="decoder")(decoder_embedded, initial_state=encoder_state)
    output = layers.Dense(10)(decoder_output)

    model = keras.Model([encoder_input, decoder_input], output)

    book.seq2seq = model


def cell_5(book: Notebook) -> None:
    paragraph1 = np.random.random((20, 10, 50)).astype(np.float32)
    paragraph2 = np.random.random((20, 10, 50)).astype(np.float32)
    paragraph3 = np.random.random((20, 10, 50)).astype(np.float32)

    lstm_layer = layers.LSTM(64, stateful=True)
    output = lstm_layer(paragraph1)
    output = lstm_layer(paragraph2)
    output = lstm_layer(paragraph3)

    book.paragraphs = [paragraph1, paragraph2, paragraph3]
    book.stateful, book.last_output = lstm_layer, output
    book.states_before_reset = lstm_layer.states

    # reset_states() will reset the cached state to the original initial_state.
    # If no initial_state was provided, zero-states will be used by default.
    lstm_layer.reset_states()


def cell_6(book: Notebook) -> None:
    paragraph1 = np.random.random((20, 10, 50)).astype(np.float32)
    paragraph2 = np.random.random((20, 10, 50)).astype(np.float32)
    paragraph3 = np.random.random((20, 10, 50)).astype(np.float32)

    lstm_layer = layers.LSTM(64, stateful=True)
    output = lstm_layer(paragraph1)
    output = lstm_layer(paragraph2)

    existing_state = lstm_layer.states

    new_lstm_layer = layers.LSTM(64)
    new_output = new_lstm_layer(paragraph3, initial_state=existing_state)

    book.reuse = paragraph3, lstm_layer, new_lstm_layer, output, new_output


def cell_7(book: Notebook) -> None:
    model = keras.Sequential()

    model.add(layers.Bidirectional(layers.LSTM(64, return_sequences=True), input_shape=(5, 10)))
    model.add(layers.Bidirectional(layers.LSTM(32)))
    model.add(layers.Dense(10))

    book.bidirectional = model


def table(name: str, rows: list[str], total: str) -> str:
    """A summary as the guide prints it, with the lines of = that its text lost."""
    titles = " Layer (type)                Output Shape              Param #   "
    head = f'Model: "{name}"\n{LINE}\n{titles}'
    body = "".join(f"\n{row.ljust(65)}" for row in rows)
    tail = f"Total params: {total}\nTrainable params: {total}\nNon-trainable params: 0\n{LINE}"
    return f"{head}\n{DOUBLE}{body}\n{DOUBLE}\n{tail}"


def test_cell_1_imports() -> None:
    """`import streamrnn as keras` and `from streamrnn import layers` stand in for Keras's."""
    assert keras.layers is layers
    assert keras.Sequential is not None
    assert keras.Model is not None


def test_cell_2_embedding_lstm_dense(book: Notebook) -> None:
    """The first table, 164,106 parameters, and an output of 10 a row."""
    rows = [
        " embedding (Embedding)       (None, None, 64)          64000",
        "",
        " lstm (LSTM)                 (None, 128)               98816",
        "",
        " dense (Dense)               (None, 10)                1290",
        "",
    ]
    assert printed(book.first) == table("sequential", rows, "164,106")
    assert book.first(np.ones((3, 7), np.int64)).shape == (3, 10)


def test_cell_3_gru_over_simple_rnn(book: Notebook) -> None:
    """The second table, 361,866 parameters, and the shapes that its comments state."""
    rows = [
        " embedding_1 (Embedding)     (None, None, 64)          64000",
        "",
        " gru (GRU)                   (None, None, 256)         247296",
        "",
        " simple_rnn (SimpleRNN)      (None, 128)               49280",
        "",
        " dense_1 (Dense)             (None, 10)                1290",
        "",
    ]
    assert printed(book.second) == table("sequential_1", rows, "361,866")
    embedded = book.second.layers[0](np.ones((2, 6), np.int64))
    sequence = book.second.layers[1](embedded)
    assert sequence.shape == (2, 6, 256)
    assert book.second.layers[2](sequence).shape == (2, 128)


SEQ2SEQ = """\
Model: "model"
__________________________________________________________________________________________________
 Layer (type)                   Output Shape         Param #     Connected to                     
==================================================================================================
 input_1 (InputLayer)           [(None, None)]       0           []                               
                                                                                                  
 input_2 (InputLayer)           [(None, None)]       0           []                               
                                                                                                  
 embedding_2 (Embedding)        (None, None, 64)     64000       ['input_1[0][0]']                
                                                                                                  
 embedding_3 (Embedding)        (None, None, 64)     128000      ['input_2[0][0]']                
                                                                                                  
 encoder (LSTM)                 [(None, 64),         33024       ['embedding_2[0][0]']            
                                 (None, 64),                                                      
                                 (None, 64)]                                                      
                                                                                                  
 decoder (LSTM)                 (None, 64)           33024       ['embedding_3[0][0]',            
                                                                  'encoder[0][1]',                
                                                                  'encoder[0][2]']                
                                                                                                  
 dense_2 (Dense)                (None, 10)           650         ['decoder[0][0]']                
                                                                                                  
==================================================================================================
Total params: 258,698
Trainable params: 258,698
Non-trainable params: 0
__________________________________________________________________________________________________"""  # noqa: W291, W293


def test_cell_4_encoder_decoder(book: Notebook) -> None:
    """The table with connections (the rest of it as Keras 2.8 prints it), 258,698 parameters."""
    assert printed(book.seq2seq) == SEQ2SEQ
    source, target = np.ones((2, 5), np.int64), np.full((2, 3), 7)
    output = book.seq2seq([source, target])
    assert output.shape == (2, 10)
    assert (output != book.seq2seq([source + 1, target])).any(), "the encoder has no effect"


def test_cell_5_cross_batch_statefulness(book: Notebook) -> None:
    """Three calls equal one call on the joined paragraphs; reset_states clears the state."""
    fresh = layers.LSTM(64, return_state=True)
    fresh.build((None, None, 50))
    fresh.set_weights(book.stateful.get_weights())
    output, h, c = fresh(np.concatenate(book.paragraphs, axis=1))
    np.testing.assert_array_equal(book.last_output, output)
    np.testing.assert_array_equal(book.states_before_reset[0], h)
    np.testing.assert_array_equal(book.states_before_reset[1], c)

    assert not np.any(book.stateful.states)
    again = book.stateful(book.paragraphs[0])
    np.testing.assert_array_equal(again, fresh(book.paragraphs[0])[0])
    book.stateful.reset_states()


def test_cell_6_state_reuse(book: Notebook) -> None:
    """`new_layer(x, initial_state=layer.states)` starts from that state, and leaves it alone."""
    paragraph, old, new, output, new_output = book.reuse
    h, c = old.states
    np.testing.assert_array_equal(h, output)
    assert new_output.shape == (20, 64)
    np.testing.assert_array_equal(new(paragraph, initial_state=[h, c]), new_output)
    assert (new(paragraph) != new_output).any(), "the state has no effect"
    np.testing.assert_array_equal(old.states[0], h)


def test_cell_7_bidirectional(book: Notebook) -> None:
    """The last table, 80,266 parameters, with the names cut as the guide shows them."""
    rows = [
        " bidirectional (Bidirectiona  (None, 5, 128)           38400",
        " l)",
        "",
        " bidirectional_1 (Bidirectio  (None, 64)               41216",
        " nal)",
        "",
        " dense_3 (Dense)             (None, 10)                650",
        "",
    ]
    assert printed(book.bidirectional) == table("sequential_2", rows, "80,266")
    assert book.bidirectional(np.zeros((2, 5, 10))).shape == (2, 10)
    forward = book.bidirectional.layers[0].forward_layer
    backward = book.bidirectional.layers[0].backward_layer
    assert (forward.go_backwards, backward.go_backwards) == (False, True)
