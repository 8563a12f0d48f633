// Softmax over scores that lie in registers, row by row.  Of a row a lane has `count` elements, `wide`
// neighbours of it beside as many of each of `wide - 1` other rows, as `mma` leaves them (2), or one
// after the other (1); `lanes` neighbouring lanes have all of a row, or every so-manieth of them.

// How far the place of an element of a row is from that of the first.
template <int wide>
HYBRIDC_INLINE int hybridc_place(int i) {
  return i / wide * wide * wide + i % wide;
}

// Softmax as the scores come along: what was summed up before is scaled by `factor` whenever a
// larger score appears.  M. Milakov and N. Gimelshein, Online normalizer calculation for softmax,
// 2018.  `scores` become exponentials; `total` is of this lane's columns.  Nothing is subtracted from
// a row of which all is masked (-inf) so far.
template <int count, int wide, int lanes>
HYBRIDC_INLINE void hybridc_softmax(float* scores, float* largest, float* total, float* factor) {
  float found = *largest;
#pragma unroll
  for (int i = 0; i < count; ++i) found = fmaxf(found, scores[hybridc_place<wide>(i)]);
#pragma unroll
  for (int by = 1; by < lanes; by *= 2)
    found = fmaxf(found, __shfl_xor_sync(0xffffffffu, found, by));
  float shift = found == -INFINITY ? 0.0f : found;
  *factor = __expf(*largest - shift);
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    float* score = scores + hybridc_place<wide>(i);
    sum += *score = __expf(*score - shift);
  }
  *total = *total * *factor + sum;
  *largest = found;
}

// Scales the sums of a row.
template <int count, int wide>
HYBRIDC_INLINE void hybridc_rescale(float* sums, const float* factor) {
#pragma unroll
  for (int i = 0; i < count; ++i) sums[hybridc_place<wide>(i)] *= *factor;
}

// What a row's lanes have together.
template <int lanes>
HYBRIDC_INLINE void hybridc_row_total(float* total) {
#pragma unroll
  for (int by = 1; by < lanes; by *= 2) *total += __shfl_xor_sync(0xffffffffu, *total, by);
}

// The lanes of a warp meet.
HYBRIDC_INLINE void hybridc_meet() { __syncwarp(); }

// Parts of a row that were computed apart, each against its own largest score, as one: `to` gets the
// weighted value, the total and the largest score.  `marks` are largest score and total of each part,
// parts are `value_step` and `mark_step` apart.
template <int parts>
HYBRIDC_INLINE void hybridc_merge(float* to, const void* values, int value_step, const void* marks,
                                  int mark_step) {
  const float* value = static_cast<const float*>(values);
  const float* mark = static_cast<const float*>(marks);
  float found = mark[0];
#pragma unroll
  for (int part = 1; part < parts; ++part) found = fmaxf(found, mark[part * mark_step]);
  float shift = found == -INFINITY ? 0.0f : found;
  float sum = 0.0f, total = 0.0f;
#pragma unroll
  for (int part = 0; part < parts; ++part) {
    float weight = __expf(mark[part * mark_step] - shift);
    sum += weight * value[part * value_step];
    total += weight * mark[part * mark_step + 1];
  }
  to[0] = sum;
  to[1] = total;
  to[2] = found;
}
