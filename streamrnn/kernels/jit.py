"""All compiler options in one place."""

import numba

kernel = numba.njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
inline = numba.njit(nogil=True, fastmath=False, error_model="numpy")
