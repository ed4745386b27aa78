// Paired statistics over examples, as results.statistics has them for means: a permutation test that swaps the two rows'
// values example by example (which flips the sign of their difference), and a percentile bootstrap over examples.

const RESAMPLES = 9999;

// Bob Jenkins' small fast generator (sfc32): the same numbers on every visit.
function generator(seed) {
  let a = 0, b = seed | 0, c = 0x9e3779b9, counter = 1;
  const next = () => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11));
    c = (c + sum) | 0;
    return sum >>> 0;
  };
  for (let warm = 0; warm < 12; warm++) next();
  return next;
}

// The share of sign patterns under which the sum of the differences is as far from zero as it is, or farther.
function signFlipP(differences, random) {
  const moved = differences.filter((value) => value !== 0);
  const total = moved.reduce((sum, value) => sum + value, 0);
  const reach = Math.abs(total) - 1e-9 * moved.reduce((sum, value) => sum + Math.abs(value), 0);
  if (2 ** moved.length <= RESAMPLES) return exactP(moved, reach);
  const groups = Math.ceil(moved.length / 8);
  // The sum of eight differences under each of their 256 patterns of signs, so that a byte of chance serves eight.
  const sums = new Float64Array(groups * 256);
  for (let group = 0; group < groups; group++) {
    for (let pattern = 0; pattern < 256; pattern++) {
      let sum = 0;
      for (let bit = 0; bit < 8; bit++) {
        const value = moved[group * 8 + bit] ?? 0;
        sum += (pattern >> bit) & 1 ? value : -value;
      }
      sums[group * 256 + pattern] = sum;
    }
  }
  let asFar = 0;
  for (let resample = 0; resample < RESAMPLES; resample++) {
    let sum = 0, bytes = 0;
    for (let group = 0; group < groups; group++) {
      if ((group & 3) === 0) bytes = random();
      sum += sums[group * 256 + (bytes & 255)];
      bytes >>>= 8;
    }
    if (Math.abs(sum) >= reach) asFar++;
  }
  return (asFar + 1) / (RESAMPLES + 1);
}

// Of few differences all sign patterns are tried.
function exactP(moved, reach) {
  let asFar = 0;
  for (let pattern = 0; pattern < 2 ** moved.length; pattern++) {
    const sum = moved.reduce((all, value, bit) => all + ((pattern >> bit) & 1 ? value : -value), 0);
    if (Math.abs(sum) >= reach) asFar++;
  }
  return asFar / 2 ** moved.length;
}

// The 95% percentile interval of the mean difference, examples drawn with replacement. Of the many draws each is a step
// of Marsaglia's xorshift, written into the loop: a call for each would take most of the time.
function bootstrapInterval(differences, random) {
  const n = differences.length;
  if (n < 2) return null;
  const means = new Float64Array(RESAMPLES), scale = n / 4294967296;
  let state = random() | 1;
  for (let resample = 0; resample < RESAMPLES; resample++) {
    let sum = 0;
    for (let draw = 0; draw < n; draw++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      sum += differences[((state >>> 0) * scale) | 0];
    }
    means[resample] = sum / n;
  }
  means.sort();
  const quantile = (share) => {
    const place = share * (RESAMPLES - 1), below = Math.floor(place);
    const above = Math.min(below + 1, RESAMPLES - 1);
    return means[below] + (place - below) * (means[above] - means[below]);
  };
  return [quantile(0.025), quantile(0.975)];
}

// first, second: values by example, NaN where there is none. Only examples count that have both: the test, the means and
// the counts are all of these.
function paired(first, second) {
  const differences = [], sums = [0, 0];
  let ahead = 0, behind = 0;
  for (let i = 0; i < first.length; i++) {
    const difference = first[i] - second[i];
    if (Number.isNaN(difference)) continue;
    differences.push(difference);
    sums[0] += first[i];
    sums[1] += second[i];
    if (difference > 0) ahead++;
    if (difference < 0) behind++;
  }
  const n = differences.length;
  if (n === 0) return null;
  const values = Float64Array.from(differences);
  return {
    n, of: first.length, ahead, behind, equal: n - ahead - behind, means: sums.map((sum) => sum / n),
    difference: values.reduce((sum, value) => sum + value, 0) / n,
    p: signFlipP(values, generator(20)),
    ci95: bootstrapInterval(values, generator(21)),
  };
}

// A row's values by example, out of the bytes that the page embeds.
async function unpacked(described, row) {
  const text = described?.rows[row];
  if (!text) return null;
  const deflated = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
  const octets = new Uint8Array(await new Response(stream).arrayBuffer());
  const { n, bytes, steps } = described;
  const view = new DataView(new ArrayBuffer(n * bytes));
  for (let place = 0; place < bytes; place++) {
    for (let i = 0; i < n; i++) view.setUint8(i * bytes + place, octets[place * n + i]);
  }
  return Float64Array.from({ length: n }, (_, i) => {
    if (bytes === 4) return view.getFloat32(i * 4, true);
    const step = view.getUint16(i * 2, true);
    return step === 65535 ? NaN : step / steps;
  });
}
