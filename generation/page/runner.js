// Runs a generator's program in a worker, one latent at a time, on arrays that are made once.
// Takes the message {program, weights} once, then {z, label}; answers {pixels} or {failed}.
"use strict";

const count = (shape) => shape.reduce((product, size) => product * size, 1);
const tensor = (shape, run) => ({ shape, data: new Float32Array(count(shape)), run });

/**
 * Returns for each element of a result of that shape the index of its element in a given shape, by
 * source(coordinates) -> coordinates; -1 if that is null.
 */
function indices(shape, given, source) {
  const steps = given.map((_, axis) => count(given.slice(axis + 1)));
  const at = shape.map(() => 0);
  return Int32Array.from({ length: count(shape) }, () => {
    const index = source(at)?.reduce((sum, k, axis) => sum + k * steps[axis], 0) ?? -1;
    for (let axis = shape.length - 1; axis >= 0 && ++at[axis] === shape[axis]; axis--) at[axis] = 0;
    return index;
  });
}

/** Returns the indices that broadcast a given shape to another one of the same rank. */
function broadcast(given, shape) {
  return indices(shape, given, (at) => at.map((k, axis) => (given[axis] === 1 ? 0 : k)));
}

/** A tensor with the elements of x at source(coordinates), 0 if that is null. */
function rearranged(x, shape, source) {
  const from = indices(shape, x.shape, source);
  const result = tensor(shape, () => {
    for (let k = 0; k < from.length; k++) result.data[k] = from[k] < 0 ? 0 : x.data[from[k]];
  });
  return result;
}

function elementwise(x, f) {
  const result = tensor(x.shape, () => {
    for (let k = 0; k < x.data.length; k++) result.data[k] = f(x.data[k]);
  });
  return result;
}

/** f of the elements of two tensors, which broadcast like NumPy's. */
function pairwise(a, b, f) {
  const rank = Math.max(a.shape.length, b.shape.length);
  const [left, right] = [a, b].map((x) => Array(rank - x.shape.length).fill(1).concat(x.shape));
  const shape = left.map((size, axis) => (size === 1 ? right[axis] : size));
  const [fromA, fromB] = [broadcast(left, shape), broadcast(right, shape)];
  const result = tensor(shape, () => {
    for (let k = 0; k < result.data.length; k++) {
      result.data[k] = f(a.data[fromA[k]], b.data[fromB[k]]);
    }
  });
  return result;
}

/** Adds rows of weights times values to a row of y, four at once because each is a pass over y. */
function addRows(y, base, size, weights, values, rows, found) {
  let k = 0;
  for (; k + 4 <= found; k += 4) {
    const [a, b, c, d] = [values[k], values[k + 1], values[k + 2], values[k + 3]];
    const [p, q, r, s] = [rows[k], rows[k + 1], rows[k + 2], rows[k + 3]];
    for (let m = 0; m < size; m++) {
      y[base + m] += a * weights[p + m] + b * weights[q + m] + c * weights[r + m] + d * weights[s + m];
    }
  }
  for (; k < found; k++) {
    for (let m = 0; m < size; m++) y[base + m] += values[k] * weights[rows[k] + m];
  }
}

const OPERATIONS = {
  Abs: (x) => elementwise(x, Math.abs),
  Add: (a, b) => pairwise(a, b, (p, q) => p + q),
  Concat(...parts) {
    const axis = Number(parts.pop().data[0]);
    const ends = [];
    for (const { shape } of parts) ends.push((ends.at(-1) ?? 0) + shape[axis]);
    const shape = parts[0].shape.map((size, k) => (k === axis ? ends.at(-1) : size));
    const outer = count(shape.slice(0, axis));
    const result = tensor(shape, () => {
      let at = 0;
      for (let row = 0; row < outer; row++) {
        for (const { data } of parts) {
          const size = data.length / outer;
          result.data.set(data.subarray(row * size, (row + 1) * size), at);
          at += size;
        }
      }
    });
    return result;
  },
  Conv2D(x, kernel, steps) {
    const [, height, width, depth] = x.shape;
    const [tall, wide, , filters] = kernel.shape;
    const [down, right] = steps.data;
    const rows = Math.floor((height - tall) / down) + 1;
    const columns = Math.floor((width - wide) / right) + 1;
    const values = new Float32Array(tall * wide * depth);
    const offsets = new Int32Array(values.length);
    const result = tensor([1, rows, columns, filters], () => {
      const [input, y] = [x.data, result.data.fill(0)];
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          let found = 0;
          for (let i = 0; i < tall; i++) {
            const at = ((row * down + i) * width + column * right) * depth;
            for (let k = 0; k < wide * depth; k++) {
              const value = input[at + k];
              if (value !== 0) {
                values[found] = value;
                offsets[found++] = (i * wide * depth + k) * filters;
              }
            }
          }
          addRows(y, (row * columns + column) * filters, filters, kernel.data, values, offsets, found);
        }
      }
    });
    return result;
  },
  Div: (a, b) => pairwise(a, b, (p, q) => p / q),
  Elu: (x) => elementwise(x, (v) => (v < 0 ? Math.expm1(v) : v)),
  Exp: (x) => elementwise(x, Math.exp),
  LeakyRelu: (x, slope) => elementwise(x, (v) => (v < 0 ? slope.data[0] * v : v)),
  MatMul(x, kernel) {
    const [[rows, width], units] = [x.shape, kernel.shape[1]];
    const pixels = { data: x.data, shape: [1, rows, 1, width] };
    const filters = { data: kernel.data, shape: [1, 1, width, units] };
    const product = OPERATIONS.Conv2D(pixels, filters, { data: [1, 1] });
    return { ...product, shape: [rows, units] };
  },
  Maximum: (a, b) => pairwise(a, b, Math.max),
  Minimum: (a, b) => pairwise(a, b, Math.min),
  Mul: (a, b) => pairwise(a, b, (p, q) => p * q),
  Pad(x, edges) {
    const before = x.shape.map((_, axis) => edges.data[2 * axis]);
    const shape = x.shape.map((size, axis) => size + before[axis] + edges.data[2 * axis + 1]);
    return rearranged(x, shape, (at) => {
      const place = at.map((k, axis) => k - before[axis]);
      return place.every((k, axis) => k >= 0 && k < x.shape[axis]) ? place : null;
    });
  },
  Relu: (x) => elementwise(x, (v) => (v < 0 ? 0 : v)),
  Reshape(x, sizes) {
    const known = sizes.data.filter((size) => size >= 0);
    const rest = x.data.length / count(known);
    return { shape: sizes.data.map((size) => (size < 0 ? rest : size)), data: x.data };
  },
  Rsqrt: (x) => elementwise(x, (v) => 1 / Math.sqrt(v)),
  Sigmoid: (x) => elementwise(x, (v) => 1 / (1 + Math.exp(-v))),
  Slice(x, begin, sizes) {
    const shape = sizes.data.map((n, axis) => (n < 0 ? x.shape[axis] - begin.data[axis] : n));
    return rearranged(x, shape, (at) => at.map((k, axis) => k + begin.data[axis]));
  },
  Softplus: (x) => elementwise(x, (v) => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v)))),
  Sqrt: (x) => elementwise(x, Math.sqrt),
  Square: (x) => elementwise(x, (v) => v * v),
  Sub: (a, b) => pairwise(a, b, (p, q) => p - q),
  Sum(x, axes) {
    const shape = x.shape.map((size, axis) => (axes.data.includes(axis) ? 1 : size));
    const into = broadcast(shape, x.shape);
    const result = tensor(shape, () => {
      result.data.fill(0);
      for (let k = 0; k < x.data.length; k++) result.data[into[k]] += x.data[k];
    });
    return result;
  },
  Tanh: (x) => elementwise(x, Math.tanh),
  Transpose(x, order) {
    const shape = order.data.map((axis) => x.shape[axis]);
    return rearranged(x, shape, (at) => x.shape.map((_, axis) => at[order.data.indexOf(axis)]));
  },
};

/** Returns a function of (z, label) that runs a program and returns a new array of pixels. */
function compile(program, weights) {
  const values = {};
  for (const [name, width] of Object.entries(program.inputs)) values[name] = tensor([1, width]);
  for (const [name, { shape, integers, start }] of Object.entries(program.constants)) {
    values[name] = { shape, data: integers ?? weights.subarray(start, start + count(shape)) };
  }
  const steps = program.lines.map(([operation, name, ...taken]) => {
    values[name] = OPERATIONS[operation](...taken.map((key) => values[key]));
    return values[name];
  });
  return (z, label) => {
    values.z.data.set(z);
    if (values.labels) values.labels.data.fill(0)[label] = 1;
    for (const { run } of steps) run?.();
    return steps.at(-1).data.slice();
  };
}

/** Unpacks base64 of a zlib stream: the low bytes of all float16 numbers, then their high bytes. */
async function unpack(base64, constants) {
  const packed = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = bytes.length / 2;
  const weights = Float32Array.from({ length: size }, (_, k) => float16(bytes[k] + 256 * bytes[size + k]));
  for (const { shape, start, power } of Object.values(constants)) {
    for (let k = 0; power && k < count(shape); k++) weights[start + k] *= 2 ** power;
  }
  return weights;
}

function float16(bits) {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const size = exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction;
  return bits & 0x8000 ? -size : size;
}

let generate = null;

/** Returns the shortest time of a few images; the first ones are also compiled. */
function fastest(nlatent) {
  const z = new Float32Array(nlatent).fill(0.5);
  const times = Array.from({ length: 5 }, () => {
    const began = performance.now();
    generate(z, 0);
    return performance.now() - began;
  });
  return Math.min(...times);
}

onmessage = async ({ data }) => {
  try {
    if (data.program) {
      generate = compile(data.program, await unpack(data.weights, data.program.constants));
      postMessage({ milliseconds: fastest(data.program.inputs.z) });
    } else {
      postMessage({ pixels: generate(data.z, data.label) });
    }
  } catch (error) {
    postMessage({ failed: String(error) });
  }
};
