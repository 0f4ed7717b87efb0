#pragma once

struct ScaleParams {
  float* values;
  float factor;
  int count;
};
