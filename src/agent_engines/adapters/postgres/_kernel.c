/* Arrays as PostgreSQL sends and receives them (array_recv in its source), of one dimension when written. See arrays.py.

   A header of big-endian int32s: dimensions, whether there are nulls (the server looks for itself), the elements' type; for each
   dimension its length and first index; then each element's length, -1 for NULL, and its bytes. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define VERSION 1
#define MOST_DIMENSIONS 6
enum { BOOL = 16, BYTEA = 17, INT8 = 20, INT4 = 23, TEXT = 25, FLOAT8 = 701 };

/* Writing */

typedef struct {
    char *bytes;
    Py_ssize_t size, room;
} Buffer;

/* Where `more` bytes go; NULL with an exception. */
static char *space(Buffer *buffer, Py_ssize_t more) {
    if (more > INT32_MAX - buffer->size) {
        PyErr_SetString(PyExc_ValueError, "the array is longer than PostgreSQL can take");
        return NULL;
    }
    if (buffer->size + more > buffer->room) {
        Py_ssize_t room = 2 * buffer->room + more;
        char *bytes = PyMem_Realloc(buffer->bytes, (size_t)room);
        if (bytes == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        buffer->bytes = bytes;
        buffer->room = room;
    }
    buffer->size += more;
    return buffer->bytes + buffer->size - more;
}

static void big_endian(char *place, uint64_t value, int size) {
    for (int at = size; at-- > 0; value >>= 8) place[at] = (char)(value & 0xff);
}

/* An element of `size` bytes: its length, written, and the place of the rest. */
static char *element(Buffer *buffer, Py_ssize_t size) {
    char *place = size > INT32_MAX - 4 ? space(buffer, size) : space(buffer, 4 + size);
    if (place == NULL) return NULL;
    big_endian(place, (uint64_t)size, 4);
    return place + 4;
}

static int number(Buffer *buffer, uint64_t value, int size) {
    char *place = element(buffer, size);
    if (place == NULL) return -1;
    big_endian(place, value, size);
    return 0;
}

static int is_not(PyObject *item, const char *wanted) {
    PyObject *name = PyType_GetName(Py_TYPE(item));
    if (name != NULL) PyErr_Format(PyExc_TypeError, "expected %s, got %U", wanted, name);
    Py_XDECREF(name);
    return -1;
}

static int text(Buffer *buffer, PyObject *item) {
    Py_ssize_t size;
    if (!PyUnicode_Check(item)) return is_not(item, "str");
    const char *bytes = PyUnicode_AsUTF8AndSize(item, &size);
    char *place = bytes == NULL ? NULL : element(buffer, size);
    if (place == NULL) return -1;
    memcpy(place, bytes, (size_t)size);
    return 0;
}

/* As asyncpg takes them: what can be made an int is one, text is none. */
static int whole(Buffer *buffer, PyObject *item, int size) {
    int overflow = 0;
    PyObject *made = NULL;
    if (!PyLong_Check(item) && PyObject_HasAttrString((PyObject *)Py_TYPE(item), "__int__")) {
        made = PyNumber_Long(item);
        if (made == NULL) return -1;
        item = made;
    }
    long long value = PyLong_AsLongLongAndOverflow(item, &overflow);
    Py_XDECREF(made);
    if (value == -1 && !overflow && PyErr_Occurred()) return -1;
    if (overflow || (size == 4 && (value < INT32_MIN || value > INT32_MAX))) {
        PyErr_Format(PyExc_OverflowError, "value out of int%d range", 8 * size);
        return -1;
    }
    return number(buffer, (uint64_t)value, size);
}

static int int4(Buffer *buffer, PyObject *item) { return whole(buffer, item, 4); }
static int int8(Buffer *buffer, PyObject *item) { return whole(buffer, item, 8); }

static int float8(Buffer *buffer, PyObject *item) {
    uint64_t bits;
    double value = PyFloat_AsDouble(item);
    if (value == -1.0 && PyErr_Occurred()) return -1;
    memcpy(&bits, &value, sizeof bits);
    return number(buffer, bits, 8);
}

static int boolean(Buffer *buffer, PyObject *item) {
    if (!PyBool_Check(item)) return is_not(item, "bool");
    return number(buffer, Py_IsTrue(item), 1);
}

static int bytea(Buffer *buffer, PyObject *item) {
    Py_buffer view;
    if (PyObject_GetBuffer(item, &view, PyBUF_SIMPLE) < 0) return -1;
    char *place = element(buffer, view.len);
    if (place != NULL) memcpy(place, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return place == NULL ? -1 : 0;
}

/* The elements as a list, a new reference. */
static PyObject *listed(PyObject *given) {
    if (PyList_CheckExact(given)) return Py_NewRef(given);
    if (PyUnicode_Check(given) || PyBytes_Check(given) || PyByteArray_Check(given) || PyMemoryView_Check(given) ||
        PyDict_Check(given)) {
        is_not(given, "a list");
        return NULL;
    }
    return PyObject_Size(given) < 0 ? NULL : PySequence_List(given);
}

/* Says which element it was, as asyncpg does. */
static void blame(Py_ssize_t at) {
    PyObject *type, *value, *trace;
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) return;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_Format(PyExc_ValueError, "invalid array element at index %zd: %S", at, value != NULL ? value : Py_None);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
}

static int filled(Buffer *buffer, PyObject *items, Py_ssize_t count, int (*write)(Buffer *, PyObject *)) {
    for (Py_ssize_t at = 0; at < count; at++) {
        PyObject *item = PyList_GetItem(items, at);
        if (item == NULL) return -1;
        if (Py_IsNone(item)) {
            char *place = space(buffer, 4);
            if (place == NULL) return -1;
            big_endian(place, (uint64_t)-1, 4);
            continue;
        }
        /* A conversion may call code that changes the list. */
        Py_INCREF(item);
        int failed = write(buffer, item) < 0;
        Py_DECREF(item);
        if (failed) {
            blame(at);
            return -1;
        }
    }
    return 0;
}

static PyObject *written(PyObject *given, int type, int (*write)(Buffer *, PyObject *)) {
    PyObject *items = listed(given), *array = NULL;
    if (items == NULL) return NULL;
    Py_ssize_t count = PyList_Size(items);
    Buffer buffer = {.bytes = NULL};
    char *header = space(&buffer, count > 0 ? 20 : 12);
    if (header != NULL) {
        big_endian(header, count > 0, 4);
        big_endian(header + 4, 0, 4);
        big_endian(header + 8, (uint64_t)type, 4);
        if (count > 0) {
            big_endian(header + 12, (uint64_t)count, 4);
            big_endian(header + 16, 1, 4);
        }
        if (filled(&buffer, items, count, write) == 0) array = PyBytes_FromStringAndSize(buffer.bytes, buffer.size);
    }
    PyMem_Free(buffer.bytes);
    Py_DECREF(items);
    return array;
}

static PyObject *texts(PyObject *self, PyObject *given) { return written(given, TEXT, text); }
static PyObject *int4s(PyObject *self, PyObject *given) { return written(given, INT4, int4); }
static PyObject *int8s(PyObject *self, PyObject *given) { return written(given, INT8, int8); }
static PyObject *float8s(PyObject *self, PyObject *given) { return written(given, FLOAT8, float8); }
static PyObject *bools(PyObject *self, PyObject *given) { return written(given, BOOL, boolean); }
static PyObject *byteas(PyObject *self, PyObject *given) { return written(given, BYTEA, bytea); }

/* Reading */

typedef struct {
    const unsigned char *at;
    Py_ssize_t left;
    int type;
    int32_t lengths[MOST_DIMENSIONS];
} Reader;

static PyObject *broken(void) {
    PyErr_SetString(PyExc_ValueError, "this is no array of PostgreSQL");
    return NULL;
}

static const unsigned char *taken(Reader *reader, Py_ssize_t size) {
    if (size < 0 || size > reader->left) {
        broken();
        return NULL;
    }
    reader->at += size;
    reader->left -= size;
    return reader->at - size;
}

static uint64_t number_at(const unsigned char *place, int size) {
    uint64_t value = 0;
    for (int at = 0; at < size; at++) value = value << 8 | place[at];
    return value;
}

/* -1 with an exception. */
static int int32_of(Reader *reader, int32_t *value) {
    const unsigned char *place = taken(reader, 4);
    if (place == NULL) return -1;
    *value = (int32_t)(uint32_t)number_at(place, 4);
    return 0;
}

static int size_of(int type) { return type == BOOL ? 1 : type == INT4 ? 4 : type == INT8 || type == FLOAT8 ? 8 : -1; }

static PyObject *one(Reader *reader) {
    int32_t size;
    double real;
    if (int32_of(reader, &size) < 0) return NULL;
    if (size == -1) return Py_NewRef(Py_None);
    const unsigned char *place = taken(reader, size);
    if (place == NULL) return NULL;
    int fixed = size_of(reader->type);
    if (fixed >= 0 && fixed != size) return broken();
    if (reader->type == TEXT) return PyUnicode_DecodeUTF8((const char *)place, size, NULL);
    if (reader->type == BYTEA) return PyBytes_FromStringAndSize((const char *)place, size);
    if (fixed < 0) return broken();
    uint64_t bits = number_at(place, size);
    switch (reader->type) {
    case BOOL: return PyBool_FromLong(bits != 0);
    case INT4: return PyLong_FromLong((int32_t)(uint32_t)bits);
    case INT8: return PyLong_FromLongLong((int64_t)bits);
    }
    memcpy(&real, &bits, sizeof real);
    return PyFloat_FromDouble(real);
}

/* Lists of lists for more dimensions. Grown element by element: a length is only what somebody says. */
static PyObject *several(Reader *reader, int32_t dimension, int32_t dimensions) {
    PyObject *list = PyList_New(0);
    for (int32_t at = 0; list != NULL && at < reader->lengths[dimension]; at++) {
        PyObject *item = dimension + 1 < dimensions ? several(reader, dimension + 1, dimensions) : one(reader);
        if (item == NULL || PyList_Append(list, item) < 0) Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

/* read(data) */
static PyObject *read_array(PyObject *self, PyObject *data) {
    char *bytes;
    Py_ssize_t size;
    Reader reader;
    int32_t dimensions, flags, first;
    if (PyBytes_AsStringAndSize(data, &bytes, &size) < 0) return NULL;
    reader.at = (const unsigned char *)bytes;
    reader.left = size;
    if (int32_of(&reader, &dimensions) < 0 || int32_of(&reader, &flags) < 0 || int32_of(&reader, &reader.type) < 0)
        return NULL;
    if (dimensions < 0 || dimensions > MOST_DIMENSIONS) return broken();
    int empty = dimensions == 0;
    for (int32_t at = 0; at < dimensions; at++) {
        if (int32_of(&reader, &reader.lengths[at]) < 0 || int32_of(&reader, &first) < 0) return NULL;
        if (reader.lengths[at] < 0) return broken();
        empty |= reader.lengths[at] == 0;
    }
    return empty ? PyList_New(0) : several(&reader, 0, dimensions);
}

#define ONE(name) {#name, name, METH_O, "See arrays.py."}

static PyMethodDef METHODS[] = {
    ONE(texts), ONE(int4s), ONE(int8s), ONE(float8s), ONE(bools), ONE(byteas), {"read", read_array, METH_O, "See arrays.py."},
    {NULL, NULL, 0, NULL},
};

static int started(PyObject *module) { return PyModule_AddIntConstant(module, "VERSION", VERSION); }

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, started}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "_kernel", "Arrays of PostgreSQL, compiled.", 0, METHODS, SLOTS, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&MODULE); }
