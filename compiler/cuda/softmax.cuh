// Softmax over scores that lie in registers as `mma` leaves them: of each tile of 8 columns a lane
// has two neighbouring columns of one row, and the same of the row 8 further on; four neighbouring
// lanes have all of a row.

// Softmax as the scores come along: what was summed up before is scaled by `factor` whenever a
// larger score appears.  M. Milakov and N. Gimelshein, Online normalizer calculation for softmax,
// 2018.  `scores` become exponentials; `largest`, `total` (of this lane's columns) and `factor` are
// of the two rows.  Nothing is subtracted from a row of which all is masked (-inf) so far.
template <int tiles>
HYBRIDC_INLINE void hybridc_softmax(float* scores, float* largest, float* total, float* factor) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    float found = largest[row];
#pragma unroll
    for (int tile = 0; tile < tiles; ++tile)
      found = fmaxf(found, fmaxf(scores[4 * tile + 2 * row], scores[4 * tile + 2 * row + 1]));
    found = fmaxf(found, __shfl_xor_sync(0xffffffffu, found, 1));
    found = fmaxf(found, __shfl_xor_sync(0xffffffffu, found, 2));
    float shift = found == -INFINITY ? 0.0f : found;
    factor[row] = __expf(largest[row] - shift);
    float sum = 0.0f;
#pragma unroll
    for (int tile = 0; tile < tiles; ++tile)
#pragma unroll
      for (int i = 4 * tile + 2 * row; i < 4 * tile + 2 * row + 2; ++i)
        sum += scores[i] = __expf(scores[i] - shift);
    total[row] = total[row] * factor[row] + sum;
    largest[row] = found;
  }
}

// Scales the sums of two rows.
template <int tiles>
HYBRIDC_INLINE void hybridc_rescale(float* sums, const float* factor) {
#pragma unroll
  for (int i = 0; i < 4 * tiles; ++i) sums[i] *= factor[i / 2 % 2];
}

// What a row's four lanes have together, for two rows.
HYBRIDC_INLINE void hybridc_row_total(float* total) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    total[row] += __shfl_xor_sync(0xffffffffu, total[row], 1);
    total[row] += __shfl_xor_sync(0xffffffffu, total[row], 2);
  }
}

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
