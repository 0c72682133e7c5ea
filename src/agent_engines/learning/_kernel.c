/* Arithmetic of decisions and lessons, compiled: the functions of arithmetic.py, which says what they do.

   What a lesson leaves behind has the bits numpy leaves: every product and sum is a double of its own, in the order of the
   index. So: no fused multiply-add, no other order of sums (-ffp-contract=off, no -ffast-math), no extended registers. Arrays come
   through the buffer protocol and the stable ABI alone: one build serves every Python from 3.11 up and any numpy. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>
#include <math.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "doubles would be computed with other widths than numpy's: agent-engines then does without this module"
#endif

#define VERSION 4
#define CELL_PRIOR 15.0
#define KIND_PRIOR 4.0
#define TYPE_PRIOR 5.0
#define LOST_WORKS 5.0
enum { FLIGHT, SLOWNESS, PACE, WAIT, ODDS, SILENCE, NUMBERS };

#define LANES 8
#define MOST_ARRAYS 10

/* Wider registers where the machine has them; the lanes are the same ones, so the bits are too. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

typedef struct {
    Py_buffer held[MOST_ARRAYS];
    int count;
} Arrays;

static void let_go(Arrays *arrays) {
    while (arrays->count > 0) PyBuffer_Release(&arrays->held[--arrays->count]);
}

/* The array's numbers, or NULL with an exception. `flags` adds PyBUF_WRITABLE. Rows and columns of a flat one: 1 and its length. */
static void *array_of(Arrays *arrays, PyObject *given, int flags, Py_ssize_t *rows, Py_ssize_t *columns) {
    Py_buffer *view = &arrays->held[arrays->count];
    if (PyObject_GetBuffer(given, view, PyBUF_ND | flags) < 0) return NULL;
    arrays->count++;
    if (view->itemsize != 8 || view->ndim < 1 || view->ndim > 2) {
        PyErr_SetString(PyExc_ValueError, "an array must have one or two dimensions and eight bytes a number");
        return NULL;
    }
    if (rows != NULL) *rows = view->ndim == 2 ? view->shape[0] : 1;
    if (columns != NULL) *columns = view->shape[view->ndim - 1];
    return view->buf;
}

/* As above, and flat with `length` numbers. */
static void *vector_of(Arrays *arrays, PyObject *given, int flags, Py_ssize_t length) {
    Py_ssize_t rows, columns;
    void *found = array_of(arrays, given, flags, &rows, &columns);
    if (found != NULL && rows * columns != length) {
        PyErr_Format(PyExc_ValueError, "an array has %zd numbers, not %zd", rows * columns, length);
        return NULL;
    }
    return found;
}

/* Which rows are meant: `places` where they do not follow each other, otherwise `first` and on. */
typedef struct {
    const Py_ssize_t *places;
    Py_ssize_t first, count;
} Rows;

#define ROW(rows, at) ((rows).places != NULL ? (rows).places[at] : (rows).first + (at))

static int rows_of(Arrays *arrays, PyObject *given, Py_ssize_t limit, Rows *rows) {
    rows->places = NULL;
    if (PySlice_Check(given)) {
        Py_ssize_t stop, step;
        if (PySlice_Unpack(given, &rows->first, &stop, &step) < 0) return -1;
        rows->count = PySlice_AdjustIndices(limit, &rows->first, &stop, step);
        if (step == 1) return 0;
        PyErr_SetString(PyExc_ValueError, "rows must follow each other");
        return -1;
    }
    rows->places = array_of(arrays, given, 0, NULL, &rows->count);
    if (rows->places == NULL) return -1;
    for (Py_ssize_t at = 0; at < rows->count; at++)
        if (rows->places[at] < 0 || rows->places[at] >= limit) {
            PyErr_Format(PyExc_IndexError, "row %zd of %zd", rows->places[at], limit);
            return -1;
        }
    return 0;
}

static int wants(Py_ssize_t count, Py_ssize_t wanted) {
    if (count == wanted) return 1;
    PyErr_Format(PyExc_TypeError, "%zd arguments are wanted, not %zd", wanted, count);
    return 0;
}

/* The floats of a tuple; -1 with an exception. */
static int floats_of(PyObject *given, double *found, Py_ssize_t wanted) {
    if (!PyTuple_Check(given) || PyTuple_Size(given) != wanted) {
        PyErr_Format(PyExc_TypeError, "a tuple of %zd numbers is wanted", wanted);
        return -1;
    }
    for (Py_ssize_t at = 0; at < wanted; at++) {
        found[at] = PyFloat_AsDouble(PyTuple_GetItem(given, at));
        if (found[at] == -1.0 && PyErr_Occurred()) return -1;
    }
    return 0;
}

/* Numbers that may come as a tuple: written to `room` then, which the caller gives back to PyMem_Free. */
static const double *given_as(Arrays *arrays, PyObject *given, double **room, Py_ssize_t *size) {
    *room = NULL;
    if (!PyTuple_Check(given)) return array_of(arrays, given, 0, NULL, size);
    *size = PyTuple_Size(given);
    *room = PyMem_Malloc((size_t)(*size + 1) * sizeof(double));
    if (*room == NULL) PyErr_NoMemory();
    else if (floats_of(given, *room, *size) == 0) return *room;
    return NULL;
}

static PyObject *done(Arrays *arrays) {
    let_go(arrays);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* all_finite(raw) */
static PyObject *all_finite(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Arrays arrays = {.count = 0};
    Py_ssize_t size, at = 0;
    if (!wants(count, 1)) return NULL;
    const double *raw = array_of(&arrays, args[0], 0, NULL, &size);
    if (raw == NULL) return done(&arrays);
    while (at < size && isfinite(raw[at])) at++;
    let_go(&arrays);
    return PyBool_FromLong(at == size);
}

/* encode(raw, scale, limit, encoded) */
static PyObject *encode(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Arrays arrays = {.count = 0};
    Py_ssize_t size;
    double *room;
    if (!wants(count, 4)) return NULL;
    double limit = PyFloat_AsDouble(args[2]);
    if (PyErr_Occurred()) return NULL;
    const double *raw = given_as(&arrays, args[0], &room, &size);
    const double *scale = raw == NULL ? NULL : vector_of(&arrays, args[1], 0, 2 * size);
    double *encoded = scale == NULL ? NULL : vector_of(&arrays, args[3], PyBUF_WRITABLE, size + 1);
    for (Py_ssize_t i = 0; encoded != NULL && i < size; i++) {
        double value = (raw[i] - scale[i]) * scale[size + i];
        value = value > limit ? limit : value;
        encoded[i] = value < -limit ? -limit : value;
    }
    if (encoded != NULL) encoded[size] = 1.0;
    PyMem_Free(room);
    return done(&arrays);
}

/* The covariance times a vector: sum of its rows, each times one number of the vector, in the order of the rows. */
WIDE static void rows_times(const double *square, const double *vector, Py_ssize_t size, double *sums) {
    for (Py_ssize_t i = 0; i < size; i++) sums[i] = square[i] * vector[0];
    for (Py_ssize_t j = 1; j < size; j++) {
        const double *row = square + j * size;
        for (Py_ssize_t i = 0; i < size; i++) sums[i] += row[i] * vector[j];
    }
}

static double in_order(const double *left, const double *right, Py_ssize_t size) {
    double sum = left[0] * right[0];
    for (Py_ssize_t i = 1; i < size; i++) sum += left[i] * right[i];
    return sum;
}

WIDE static void take_off(double *packed, const double *gain, const double *step, Py_ssize_t size) {
    for (Py_ssize_t i = 0; i < size; i++) {
        for (Py_ssize_t j = i; j < size; j++) packed[j - i] -= gain[i] * step[j];
        packed += size - i;
    }
}

static void learn_into(double *belief, const double *encoded, double quality, Py_ssize_t size, double *room) {
    double *weights = belief + size * (size + 1) / 2;
    double *square = room, *gain = room + size * size, *step = gain + size;
    const double *next = belief;
    for (Py_ssize_t i = 0; i < size; i++)
        for (Py_ssize_t j = i; j < size; j++) square[i * size + j] = square[j * size + i] = *next++;
    rows_times(square, encoded, size, gain);
    double told = in_order(weights, encoded, size);
    double scale = 1.0 / (1.0 + in_order(encoded, gain, size));
    for (Py_ssize_t i = 0; i < size; i++) step[i] = gain[i] * scale;
    take_off(belief, gain, step, size);
    double right = scale * (quality - told);
    for (Py_ssize_t i = 0; i < size; i++) weights[i] += gain[i] * right;
}

/* ridge_learn(beliefs, row, encoded, quality) */
static PyObject *ridge_learn(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Arrays arrays = {.count = 0};
    Py_ssize_t rows, width, size;
    if (!wants(count, 4)) return NULL;
    Py_ssize_t row = PyLong_AsSsize_t(args[1]);
    double quality = PyFloat_AsDouble(args[3]);
    if (PyErr_Occurred()) return NULL;
    double *beliefs = array_of(&arrays, args[0], PyBUF_WRITABLE, &rows, &width);
    const double *encoded = beliefs == NULL ? NULL : array_of(&arrays, args[2], 0, NULL, &size);
    if (encoded == NULL) return done(&arrays);
    if (row < 0 || row >= rows || width != size * (size + 1) / 2 + size) {
        PyErr_SetString(PyExc_ValueError, "there is no such belief");
        return done(&arrays);
    }
    double *room = PyMem_Malloc((size_t)(size * (size + 2)) * sizeof(double));
    if (room == NULL) PyErr_NoMemory();
    else learn_into(beliefs + row * width, encoded, quality, size, room);
    PyMem_Free(room);
    return done(&arrays);
}

/* Sum of products in LANES lanes, so that registers of any width give the same bits. */
WIDE static double in_lanes(const double *left, const double *right, Py_ssize_t size) {
    double lanes[LANES] = {0.0};
    Py_ssize_t i = 0;
    for (; i + LANES <= size; i += LANES)
        for (int lane = 0; lane < LANES; lane++) lanes[lane] += left[i + lane] * right[i + lane];
    for (int lane = 0; i < size; i++, lane++) lanes[lane] += left[i] * right[i];
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

/* ridge_predict(beliefs, rows, encoded, width, means, widths) */
static PyObject *ridge_predict(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Arrays arrays = {.count = 0};
    Py_ssize_t known, line, size;
    Rows rows;
    if (!wants(count, 6)) return NULL;
    double width = PyFloat_AsDouble(args[3]);
    if (PyErr_Occurred()) return NULL;
    const double *beliefs = array_of(&arrays, args[0], 0, &known, &line);
    const double *encoded = beliefs == NULL ? NULL : array_of(&arrays, args[2], 0, NULL, &size);
    if (encoded == NULL || rows_of(&arrays, args[1], known, &rows) < 0) return done(&arrays);
    double *means = vector_of(&arrays, args[4], PyBUF_WRITABLE, rows.count);
    double *widths = means == NULL ? NULL : vector_of(&arrays, args[5], PyBUF_WRITABLE, rows.count);
    if (widths == NULL) return done(&arrays);
    Py_ssize_t packed = size * (size + 1) / 2;
    if (line != packed + size) {
        PyErr_SetString(PyExc_ValueError, "beliefs are about another number of columns");
        return done(&arrays);
    }
    double *point = PyMem_Malloc((size_t)packed * sizeof(double));
    if (point == NULL) {
        PyErr_NoMemory();
        return done(&arrays);
    }
    double *next = point;
    for (Py_ssize_t i = 0; i < size; i++) {
        *next++ = encoded[i] * encoded[i];
        for (Py_ssize_t j = i + 1; j < size; j++) *next++ = 2.0 * (encoded[i] * encoded[j]);
    }
    for (Py_ssize_t at = 0; at < rows.count; at++) {
        const double *belief = beliefs + ROW(rows, at) * line;
        double spread = in_lanes(belief, point, packed);
        means[at] = in_lanes(belief + packed, encoded, size);
        widths[at] = sqrt(spread > 0.0 ? spread : 0.0) * width;
    }
    PyMem_Free(point);
    return done(&arrays);
}

/* table_learn(cells, row, quality, keep, prior) */
static PyObject *table_learn(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Arrays arrays = {.count = 0};
    Py_ssize_t three, size;
    if (!wants(count, 5)) return NULL;
    Py_ssize_t row = PyLong_AsSsize_t(args[1]);
    double quality = PyFloat_AsDouble(args[2]), keep = PyFloat_AsDouble(args[3]), prior = PyFloat_AsDouble(args[4]);
    if (PyErr_Occurred()) return NULL;
    double *cells = array_of(&arrays, args[0], PyBUF_WRITABLE, &three, &size);
    if (cells == NULL) return done(&arrays);
    if (three != 3 || row < 0 || row >= size) {
        PyErr_SetString(PyExc_ValueError, "there is no such cell");
        return done(&arrays);
    }
    double before = cells[row], sum = cells[size + row];
    double more = before * keep + 1.0, whole = sum * keep + quality;
    cells[row] = more;
    cells[size + row] = whole;
    cells[2 * size + row] = 1.0 / (more + prior);
    let_go(&arrays);
    return Py_BuildValue("dd", more - before, whole - sum);
}

/* table_predict(every, cells, rows, shared, means, widths) */
static PyObject *table_predict(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Arrays arrays = {.count = 0};
    Py_ssize_t three, size;
    Rows rows;
    double shared[2], sums = 0.0, counts = 0.0, usual = 0.0;
    if (!wants(count, 6) || floats_of(args[3], shared, 2) < 0) return NULL;
    const double *every = array_of(&arrays, args[0], 0, &three, &size);
    if (every == NULL || rows_of(&arrays, args[2], size, &rows) < 0) return done(&arrays);
    double *means = vector_of(&arrays, args[4], PyBUF_WRITABLE, rows.count);
    double *widths = means == NULL ? NULL : vector_of(&arrays, args[5], PyBUF_WRITABLE, rows.count);
    const double *cells = NULL;
    if (widths != NULL && !Py_IsNone(args[1])) cells = vector_of(&arrays, args[1], 0, 3 * size);
    if (PyErr_Occurred() || three != 3) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a table has three rows");
        return done(&arrays);
    }
    for (Py_ssize_t at = 0; at < rows.count; at++) {
        Py_ssize_t row = ROW(rows, at);
        double inverse = every[2 * size + row];
        means[at] = (every[size + row] + KIND_PRIOR * shared[0]) * inverse;
        if (cells == NULL) {
            widths[at] = sqrt((inverse + 1.0 / CELL_PRIOR) * shared[1]);
            continue;
        }
        widths[at] = sqrt((inverse + cells[2 * size + row]) * shared[1]);
        sums += cells[size + row];
        counts += cells[row];
        usual += means[at] * cells[row];
    }
    if (cells == NULL) return done(&arrays);
    double harder = (sums - usual) / (counts + TYPE_PRIOR);
    for (Py_ssize_t at = 0; at < rows.count; at++) {
        Py_ssize_t row = ROW(rows, at);
        means[at] = ((means[at] + harder) * CELL_PRIOR + cells[size + row]) * cells[2 * size + row];
    }
    return done(&arrays);
}

/* All that one decision is made of; the arrays are the caller's. `rows` has at least one replica of each kind. */
typedef struct {
    const double *means, *widths, *costs, *numbers, *draws;
    const Py_ssize_t *starts, *sizes;
    Py_ssize_t *best;
    double *finish, *worth, *shares;
    Rows rows;
    Py_ssize_t kinds, known, turns;
} Question;

/* The numbers of `terms`, in this order. */
enum { WORK, MEAN, SILENT, SUSPECTED, PRICE, HASTE, LATE, LEFT, FLOOR, CHANCE, TERMS };

/* When each replica would be done. */
static void completion(const Question *asked, const double *terms, double *times) {
    const double *numbers = asked->numbers;
    Py_ssize_t known = asked->known;
    double least = INFINITY;
    for (Py_ssize_t at = 0; at < asked->rows.count; at++) {
        Py_ssize_t row = ROW(asked->rows, at);
        double time = numbers[PACE * known + row] * terms[WORK] + numbers[WAIT * known + row] * terms[MEAN];
        if (terms[SILENT] != 0.0) time += numbers[SILENCE * known + row];
        times[at] = time;
        least = time < least ? time : least;
    }
    if (terms[SUSPECTED] == 0.0) return;
    double lost = least + LOST_WORKS * terms[MEAN];
    for (Py_ssize_t at = 0; at < asked->rows.count; at++)
        times[at] += numbers[ODDS * known + ROW(asked->rows, at)] * lost;
}

/* Of each kind the first of the replicas that are done soonest. */
static void quickest(const Question *asked, const double *times) {
    for (Py_ssize_t kind = 0; kind < asked->kinds; kind++) {
        Py_ssize_t at = asked->starts[kind], end = at + asked->sizes[kind], best = at;
        while (++at < end)
            if (times[at] < times[best]) best = at;
        asked->best[kind] = best;
        asked->finish[kind] = times[best];
    }
}

static void utility(const Question *asked, const double *terms) {
    for (Py_ssize_t kind = 0; kind < asked->kinds; kind++) {
        double worth = asked->means[kind] - asked->costs[kind] * terms[PRICE];
        if (asked->numbers != NULL) {
            worth -= terms[HASTE] * asked->finish[kind];
            if (asked->finish[kind] > terms[LEFT]) worth -= terms[LATE];
        }
        asked->worth[kind] = worth;
    }
}

static Py_ssize_t best_of(const double *values, Py_ssize_t kinds) {
    Py_ssize_t best = 0;
    for (Py_ssize_t kind = 1; kind < kinds; kind++)
        if (values[kind] > values[best]) best = kind;
    return best;
}

/* Who wins a draw: the values and the largest of them in lanes, which wide registers do, then where that is. */
WIDE static Py_ssize_t winner(
    const double *values, const double *widths, const double *draws, double *drawn, Py_ssize_t kinds
) {
    double most[LANES];
    Py_ssize_t kind = 0, best = 0;
    for (int lane = 0; lane < LANES; lane++) most[lane] = -INFINITY;
    for (; kind + LANES <= kinds; kind += LANES)
        for (int lane = 0; lane < LANES; lane++) {
            double value = draws[kind + lane] * widths[kind + lane] + values[kind + lane];
            drawn[kind + lane] = value;
            most[lane] = value > most[lane] ? value : most[lane];
        }
    for (int lane = 0; kind < kinds; kind++, lane++) {
        drawn[kind] = draws[kind] * widths[kind] + values[kind];
        most[lane] = drawn[kind] > most[lane] ? drawn[kind] : most[lane];
    }
    for (int lane = 1; lane < LANES; lane++) most[0] = most[lane] > most[0] ? most[lane] : most[0];
    while (best < kinds - 1 && drawn[best] != most[0]) best++;
    return best;
}

static Py_ssize_t fallen_on(const Py_ssize_t *won, const Question *asked, double floor, double chance) {
    if (chance < floor) {
        Py_ssize_t kind = (Py_ssize_t)(chance / floor * (double)asked->kinds);
        return kind < asked->kinds - 1 ? kind : asked->kinds - 1;
    }
    Py_ssize_t turn = (Py_ssize_t)((chance - floor) / (1.0 - floor) * (double)asked->turns);
    return won[turn < asked->turns - 1 ? turn : asked->turns - 1];
}

/* The kind that is taken; -1 with an exception. */
static Py_ssize_t explored(const Question *asked, double floor, double chance) {
    Py_ssize_t kinds = asked->kinds, taken = -1;
    if (kinds == 1) {
        asked->shares[0] = 1.0;
        return 0;
    }
    double *drawn = PyMem_Malloc((size_t)kinds * sizeof(double));
    Py_ssize_t *won = PyMem_Malloc((size_t)asked->turns * sizeof(Py_ssize_t));
    if (drawn != NULL && won != NULL) {
        memset(asked->shares, 0, (size_t)kinds * sizeof(double));
        for (Py_ssize_t turn = 0; turn < asked->turns; turn++) {
            won[turn] = winner(asked->worth, asked->widths, asked->draws + turn * kinds, drawn, kinds);
            asked->shares[won[turn]] += 1.0;
        }
        double share = (1.0 - floor) / (double)asked->turns, least = floor / (double)kinds;
        for (Py_ssize_t kind = 0; kind < kinds; kind++) asked->shares[kind] = asked->shares[kind] * share + least;
        taken = fallen_on(won, asked, floor, chance);
    } else
        PyErr_NoMemory();
    PyMem_Free(drawn);
    PyMem_Free(won);
    return taken;
}

/* Whether the places of kinds' replicas lie among the rows; 0 with an exception. */
static int within(const Question *asked) {
    for (Py_ssize_t kind = 0; kind < asked->kinds; kind++)
        if (asked->starts[kind] < 0 || asked->sizes[kind] < 1 ||
            asked->sizes[kind] > asked->rows.count - asked->starts[kind]) {
            PyErr_SetString(PyExc_IndexError, "a kind has no such replicas");
            return 0;
        }
    return 1;
}

static int tuple_of(PyObject *given, Py_ssize_t size) {
    if (PyTuple_Check(given) && PyTuple_Size(given) == size) return 1;
    PyErr_Format(PyExc_TypeError, "a tuple of %zd arrays is wanted", size);
    return 0;
}

/* What belongs to kinds and draws; 0 with an exception. */
static int kinds_of(Arrays *arrays, PyObject *believed, PyObject *fleet, PyObject *draws, PyObject *room, Question *asked) {
    Py_ssize_t length, kinds;
    if (!tuple_of(believed, 2) || !tuple_of(fleet, 5)) return 0;
    if ((asked->means = array_of(arrays, PyTuple_GetItem(believed, 0), 0, NULL, &kinds)) == NULL) return 0;
    asked->kinds = kinds;
    if ((asked->widths = vector_of(arrays, PyTuple_GetItem(believed, 1), 0, kinds)) == NULL) return 0;
    if ((asked->costs = vector_of(arrays, PyTuple_GetItem(fleet, 0), 0, kinds)) == NULL) return 0;
    if ((asked->draws = array_of(arrays, draws, 0, NULL, &length)) == NULL) return 0;
    if ((asked->finish = vector_of(arrays, room, PyBUF_WRITABLE, 3 * kinds)) == NULL) return 0;
    asked->worth = asked->finish + kinds;
    asked->shares = asked->worth + kinds;
    asked->turns = kinds > 0 ? length / kinds : 0;
    if (asked->turns < 1) PyErr_SetString(PyExc_ValueError, "there are no draws");
    return asked->turns >= 1;
}

/* What belongs to replicas: who is soonest of each kind, and when; 0 with an exception. */
static int finished(Arrays *arrays, PyObject *const *args, const double *terms, Question *asked) {
    Py_ssize_t lines;
    PyObject *fleet = args[1];
    asked->numbers = array_of(arrays, args[2], 0, &lines, &asked->known);
    if (asked->numbers == NULL || rows_of(arrays, PyTuple_GetItem(fleet, 1), asked->known, &asked->rows) < 0) return 0;
    if (lines != NUMBERS) {
        PyErr_SetString(PyExc_ValueError, "a load has another number of lines");
        return 0;
    }
    if (asked->rows.count == asked->kinds) {
        completion(asked, terms, asked->finish);
        return 1;
    }
    if ((asked->starts = vector_of(arrays, PyTuple_GetItem(fleet, 2), 0, asked->kinds)) == NULL) return 0;
    if ((asked->sizes = vector_of(arrays, PyTuple_GetItem(fleet, 3), 0, asked->kinds)) == NULL) return 0;
    if ((asked->best = vector_of(arrays, args[5], PyBUF_WRITABLE, asked->kinds)) == NULL || !within(asked)) return 0;
    double *times = PyMem_Malloc((size_t)asked->rows.count * sizeof(double));
    if (times == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    completion(asked, terms, times);
    quickest(asked, times);
    PyMem_Free(times);
    return 1;
}

/* weigh(believed, fleet, numbers, terms, draws, best, room) */
static PyObject *weigh(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Arrays arrays = {.count = 0};
    Question asked = {.numbers = NULL};
    double terms[TERMS];
    if (!wants(count, 7) || floats_of(args[3], terms, TERMS) < 0) return NULL;
    if (!kinds_of(&arrays, args[0], args[1], args[4], args[6], &asked)) return done(&arrays);
    if (!Py_IsNone(args[2]) && !finished(&arrays, args, terms, &asked)) return done(&arrays);
    utility(&asked, terms);
    Py_ssize_t taken = explored(&asked, terms[FLOOR], terms[CHANCE]);
    Py_ssize_t best = best_of(asked.worth, asked.kinds);
    if (taken < 0) return done(&arrays);
    double quality = asked.means[taken], share = asked.shares[taken];
    double seconds = asked.numbers == NULL ? 0.0 : asked.finish[taken];
    let_go(&arrays);
    return Py_BuildValue("nnddd", taken, best, quality, seconds, share);
}

#define FAST(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, "See arithmetic.py."}

static PyMethodDef METHODS[] = {
    FAST(all_finite), FAST(encode), FAST(ridge_learn), FAST(ridge_predict), FAST(table_learn), FAST(table_predict),
    FAST(weigh), {NULL, NULL, 0, NULL},
};

static int started(PyObject *module) { return PyModule_AddIntConstant(module, "VERSION", VERSION); }

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, started}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "_kernel", "Arithmetic of decisions and lessons, compiled.", 0, METHODS, SLOTS, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&MODULE); }
