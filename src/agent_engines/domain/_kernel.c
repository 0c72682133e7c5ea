/* Looks at bytes and names, compiled: the functions of looks.py, which says what they do. One build serves every Python from
   3.11 up. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define VERSION 1
#define DIGEST 20
#define NAME 36
#define LONG_NUMBER 309
enum { NOT_ASCII = 1, NUL = 2, DEEP = 4, NUMBER = 8 };

static const char HEX[] = "0123456789abcdef";

static int wants(Py_ssize_t count, Py_ssize_t wanted) {
    if (count == wanted) return 1;
    PyErr_Format(PyExc_TypeError, "%zd arguments are wanted, not %zd", wanted, count);
    return 0;
}

/* Bytes and a limit, the arguments of both looks; -1 with an exception. */
static int text_and_limit(PyObject *const *args, Py_ssize_t count, Py_buffer *text, Py_ssize_t *limit) {
    if (!wants(count, 2)) return -1;
    *limit = PyLong_AsSsize_t(args[1]);
    if (*limit == -1 && PyErr_Occurred()) return -1;
    return PyObject_GetBuffer(args[0], text, PyBUF_SIMPLE);
}

/* Counts in `found`, until there are more than `limit`. */
static int more_than(Py_ssize_t limit, Py_ssize_t *found, const char *text, size_t size, char bracket) {
    const char *end = text + size;
    while (text < end && (text = memchr(text, bracket, (size_t)(end - text))) != NULL) {
        if (++*found > limit) return 1;
        text++;
    }
    return 0;
}

/* shallow(data, limit) */
static PyObject *shallow(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Py_buffer text;
    Py_ssize_t limit, found = 0;
    if (text_and_limit(args, count, &text, &limit) < 0) return NULL;
    int deep = more_than(limit, &found, text.buf, (size_t)text.len, '[') ||
               more_than(limit, &found, text.buf, (size_t)text.len, '{');
    PyBuffer_Release(&text);
    return PyBool_FromLong(!deep);
}

/* Whether three digits that begin at `at` look like those of an exponent. */
static int exponent(const unsigned char *text, Py_ssize_t at) {
    if (at > 0 && (text[at - 1] == '+' || text[at - 1] == '-')) at--;
    return at > 0 && (text[at - 1] | 0x20) == 'e';
}

static int seen_in(const unsigned char *text, Py_ssize_t size, Py_ssize_t depth) {
    static const char escape[] = "\\u0000";
    int found = 0;
    Py_ssize_t brackets = 0, digits = 0;
    for (Py_ssize_t at = 0; at < size; at++) {
        unsigned char byte = text[at];
        if (byte >= '0' && byte <= '9') {
            digits++;
            if (digits == LONG_NUMBER || (digits == 3 && exponent(text, at - 2))) found |= NUMBER;
            continue;
        }
        digits = 0;
        if (byte == '[' || byte == '{')
            brackets++;
        else if (byte == '\\') {
            if (size - at >= 6 && memcmp(text + at, escape, 6) == 0) found |= NUL;
        } else if (byte >= 0x80)
            found |= NOT_ASCII;
    }
    return brackets > depth ? found | DEEP : found;
}

/* seen(data, depth) */
static PyObject *seen(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Py_buffer text;
    Py_ssize_t depth;
    if (text_and_limit(args, count, &text, &depth) < 0) return NULL;
    int found = seen_in(text.buf, text.len, depth);
    PyBuffer_Release(&text);
    return PyLong_FromLong(found);
}

/* The value of a lower case hexadecimal digit; -1 for anything else. */
static int hexadecimal(char letter) {
    if (letter >= '0' && letter <= '9') return letter - '0';
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

static int dash_at(int at) { return at == 8 || at == 13 || at == 18 || at == 23; }

/* The letters of a key that is a version 7 UUID, otherwise NULL; with an exception when it is no text. */
static const char *ordered(PyObject *key) {
    if (!PyUnicode_Check(key)) {
        PyErr_SetString(PyExc_TypeError, "a key must be a str");
        return NULL;
    }
    if (PyUnicode_GetLength(key) != NAME) return NULL;
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(key, &size);
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) PyErr_Clear();
    if (text == NULL || size != NAME) return NULL;
    for (int at = 0; at < NAME; at++)
        if (dash_at(at) ? text[at] != '-' : hexadecimal(text[at]) < 0) return NULL;
    return text[14] == '7' && strchr("89ab", text[19]) != NULL ? text : NULL;
}

/* name_of(digest, key) */
static PyObject *name_of(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    char *bytes, name[NAME];
    Py_ssize_t size;
    if (!wants(count, 2) || PyBytes_AsStringAndSize(args[0], &bytes, &size) < 0) return NULL;
    if (size != DIGEST) {
        PyErr_Format(PyExc_ValueError, "a digest has %d bytes, not %zd", DIGEST, size);
        return NULL;
    }
    const unsigned char *digest = (const unsigned char *)bytes;
    const char *key = ordered(args[1]);
    if (key == NULL && PyErr_Occurred()) return NULL;
    for (int at = 0, digit = 0; at < NAME; at++) {
        if (dash_at(at)) {
            name[at] = '-';
            continue;
        }
        name[at] = HEX[digit % 2 ? digest[digit / 2] & 15 : digest[digit / 2] >> 4];
        digit++;
    }
    name[14] = key != NULL ? '7' : '5';
    name[19] = HEX[8 | (digest[8] >> 4 & 3)];
    if (key != NULL) memcpy(name, key, 13);
    return PyUnicode_FromStringAndSize(name, NAME);
}

/* moment_of(key) */
static PyObject *moment_of(PyObject *self, PyObject *given) {
    const char *key = ordered(given);
    if (key == NULL) return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    uint64_t milliseconds = 0;
    for (int at = 0; at < 13; at++)
        if (!dash_at(at)) milliseconds = milliseconds * 16 + (uint64_t)hexadecimal(key[at]);
    return PyFloat_FromDouble((double)milliseconds / 1000.0);
}

#define FAST(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, "See looks.py."}

static PyMethodDef METHODS[] = {
    FAST(name_of), FAST(seen), FAST(shallow), {"moment_of", moment_of, METH_O, "See looks.py."}, {NULL, NULL, 0, NULL},
};

static int started(PyObject *module) { return PyModule_AddIntConstant(module, "VERSION", VERSION); }

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, started}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "_kernel", "Looks at bytes and names, compiled.", 0, METHODS, SLOTS, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&MODULE); }
