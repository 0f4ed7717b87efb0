#pragma once

#include <vector>

namespace tq {

// A rectangle in pixels, y downwards.
struct Box {
  double left, top, right, bottom;
};

struct Pixel {
  double x, y;
};

// Finds places for short texts beside the points of a plot: over no other text, and over marks and lines only
// where there is no room.
class LabelPlacer {
 public:
  // Texts stay within `area`.
  explicit LabelPlacer(const Box& area) : area_(area) {}

  void add_mark(const Pixel& centre) { marks_.push_back(centre); }
  void add_line(const Pixel& from, const Pixel& to) { lines_.push_back({from, to}); }

  struct Place {
    Pixel centre;
    bool leader;       // far enough from its point that a line must say to which it belongs
    Pixel leader_end;  // on the text's edge
  };
  // For a text of this size that belongs to `point`; remembers it. Of equally free places the nearest, of
  // equally near ones that towards `preferred` (a direction).
  Place place(const Pixel& point, double width, double height, const Pixel& preferred);

 private:
  struct Segment {
    Pixel from, to;
  };

  double cost(const Box& box, const Segment& leader) const;

  Box area_;
  std::vector<Box> texts_;
  std::vector<Pixel> marks_;
  std::vector<Segment> lines_, leaders_;
};

}  // namespace tq
