// Softmax over scores that lie in registers, row by row.  Of a row a lane has `count` elements, `wide`
// neighbours of it beside as many of each of `wide - 1` other rows, as `mma` leaves them (2), or one
// after the other (1); `lanes` neighbouring lanes have all of a row, or every so-manieth of them.

// How far the place of an element of a row is from that of the first.
template <int wide>
HYBRIDC_INLINE int hybridc_place(int i) {
  return i / wide * wide * wide + i % wide;
}

// Where a lane's elements of its row begin.
template <int count, int wide>
HYBRIDC_INLINE int hybridc_row(int row) {
  return row / wide * wide * count + row % wide * wide;
}

// Softmax as the scores come along: what was summed up before is scaled by `factor` whenever a
// larger score appears.  M. Milakov and N. Gimelshein, Online normalizer calculation for softmax,
// 2018.  `scores` become exponentials, powers of 2 of them times `scale`; `total` is of this lane's
// columns.  Nothing is subtracted from a row of which all is masked (-inf) so far.  What is
// subtracted of others, `reference`, was the largest score at some time: exponentials of up to 2^8 do
// no harm in sums of float32, and seldom is anything to be scaled.  Scores that are `masked` may be as
// large as floats are, and are subtracted before they are scaled.
template <int rows, int count, int wide, int lanes, int masked>
HYBRIDC_INLINE void hybridc_softmax(float* scores, float* reference, float* total, float* factor,
                                    float scale) {
#pragma unroll
  for (int row = 0; row < rows; ++row) {
    float* first = scores + hybridc_row<count, wide>(row);
    float found = first[0];
#pragma unroll
    for (int i = 1; i < count; ++i) found = fmaxf(found, first[hybridc_place<wide>(i)]);
#pragma unroll
    for (int by = 1; by < lanes; by *= 2)
      found = fmaxf(found, __shfl_xor_sync(0xffffffffu, found, by));
    float before = reference[row];
    if (found > before + 8.0f / scale) reference[row] = found;
    float shift = reference[row] == -INFINITY ? 0.0f : reference[row];
    factor[row] = hybridc_exp2((before - shift) * scale);
    float sum = 0.0f, scaled = shift * scale;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      float* score = first + hybridc_place<wide>(i);
      float power = masked ? (*score - shift) * scale : fmaf(*score, scale, -scaled);
      sum += *score = hybridc_exp2(power);
    }
    total[row] = total[row] * factor[row] + sum;
  }
}

// Whether anything that one of the warp's lanes has summed up is to be scaled.
template <int rows>
HYBRIDC_INLINE int hybridc_moved(const float* factor) {
  bool moved = false;
#pragma unroll
  for (int row = 0; row < rows; ++row) moved |= factor[row] != 1.0f;
  return __any_sync(0xffffffffu, moved);
}

// Scales the sums of a lane's rows.
template <int rows, int count, int wide>
HYBRIDC_INLINE void hybridc_rescale(float* sums, const float* factor) {
#pragma unroll
  for (int row = 0; row < rows; ++row)
#pragma unroll
    for (int i = 0; i < count; ++i)
      sums[hybridc_row<count, wide>(row) + hybridc_place<wide>(i)] *= factor[row];
}

// What a row's lanes have together.
template <int lanes>
HYBRIDC_INLINE void hybridc_row_total(float* total) {
#pragma unroll
  for (int by = 1; by < lanes; by *= 2) *total += __shfl_xor_sync(0xffffffffu, *total, by);
}

// The lanes of a warp meet.
HYBRIDC_INLINE void hybridc_meet() { __syncwarp(); }

// Parts of a row that were computed apart, each against its own score, as one: `to` gets the weighted
// value, the total and the largest of these scores.  `marks` are that score, as a power of 2, and the
// total of each part; parts are `value_step` and `mark_step` apart, and so in each of the cluster's
// `blocks`.
template <int parts, int blocks = 1>
HYBRIDC_INLINE void hybridc_merge(float* to, const void* values, int value_step, const void* marks,
                                  int mark_step) {
  float found = -INFINITY, sum = 0.0f, total = 0.0f;
#pragma unroll
  for (int block = 0; block < blocks; ++block) {
    const void* mark = blocks > 1 ? hybridc_beside(marks, block) : marks;
#pragma unroll
    for (int part = 0; part < parts; ++part)
      found = fmaxf(found, static_cast<const float*>(mark)[part * mark_step]);
  }
  float shift = found == -INFINITY ? 0.0f : found;
#pragma unroll
  for (int block = 0; block < blocks; ++block) {
    const void* mark = blocks > 1 ? hybridc_beside(marks, block) : marks;
    const void* value = blocks > 1 ? hybridc_beside(values, block) : values;
#pragma unroll
    for (int part = 0; part < parts; ++part) {
      const float* own = static_cast<const float*>(mark) + part * mark_step;
      float weight = hybridc_exp2(own[0] - shift);
      sum += weight * static_cast<const float*>(value)[part * value_step];
      total += weight * own[1];
    }
  }
  to[0] = sum;
  to[1] = total;
  to[2] = found;
}
