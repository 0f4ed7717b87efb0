#include "experiments/sweep/label_placer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

namespace tq {
namespace {

constexpr double kMarkRadius = 5;

// Gaps between a point and its text, in pixels; a leader is drawn from the second on.
constexpr std::array<double, 6> kGaps{8, 16, 26, 38, 52, 70};
constexpr int kDirections = 16;

// What a place costs, in pixels of distance.
constexpr double kOverText = 1000, kOverLeader = 120, kOverMark = 60, kOverLine = 15, kAwayFromPreferred = 3,
                 kNearerAnother = 25;

bool overlap(const Box& a, const Box& b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

Box around(const Pixel& centre, double half_width, double half_height) {
  return {centre.x - half_width, centre.y - half_height, centre.x + half_width, centre.y + half_height};
}

// Liang and Barsky: whether part of the line lies in the box.
bool crosses(const Pixel& from, const Pixel& to, const Box& box) {
  double begin = 0, end = 1;
  const auto clip = [&](double direction, double distance) {  // keeps direction * t <= distance
    if (direction == 0) return distance >= 0;
    const double t = distance / direction;
    if (direction < 0) {
      begin = std::max(begin, t);
    } else {
      end = std::min(end, t);
    }
    return begin <= end;
  };
  const double x = to.x - from.x, y = to.y - from.y;
  return clip(-x, from.x - box.left) && clip(x, box.right - from.x) && clip(-y, from.y - box.top) &&
         clip(y, box.bottom - from.y);
}

double side(const Pixel& a, const Pixel& b, const Pixel& c) {
  return (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
}

}  // namespace

double LabelPlacer::cost(const Box& box, const Segment& leader) const {
  double sum = 0;
  if (box.left < area_.left || box.right > area_.right || box.top < area_.top || box.bottom > area_.bottom)
    sum += 2 * kOverText;
  for (const Box& text : texts_) {
    sum += overlap(text, box) ? kOverText : 0;
    sum += crosses(leader.from, leader.to, text) ? kOverLeader : 0;
  }
  const auto distance = [&](const Pixel& mark) {
    return std::hypot(mark.x - (box.left + box.right) / 2, mark.y - (box.top + box.bottom) / 2);
  };
  double nearest = distance(leader.from);
  for (const Pixel& mark : marks_) {
    sum += overlap(around(mark, kMarkRadius, kMarkRadius), box) ? kOverMark : 0;
    nearest = std::min(nearest, distance(mark));
  }
  sum += nearest < distance(leader.from) ? kNearerAnother : 0;
  for (const Segment& line : lines_) sum += crosses(line.from, line.to, box) ? kOverLine : 0;
  for (const Segment& other : leaders_) {
    sum += crosses(other.from, other.to, box) ? kOverLeader : 0;
    const bool meet = side(leader.from, leader.to, other.from) * side(leader.from, leader.to, other.to) < 0 &&
                      side(other.from, other.to, leader.from) * side(other.from, other.to, leader.to) < 0;
    sum += meet ? kOverLeader : 0;
  }
  return sum;
}

LabelPlacer::Place LabelPlacer::place(const Pixel& point, double width, double height,
                                      const Pixel& preferred) {
  Place best{};
  Box best_box{};
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t ring = 0; ring < kGaps.size(); ++ring) {
    for (int i = 0; i < kDirections; ++i) {
      const double angle = 2 * std::numbers::pi * i / kDirections;
      const double x = std::cos(angle), y = std::sin(angle);
      // From the point to the edge of the text, then to its centre.
      const double to_edge = std::min(std::fabs(x) > 1e-9 ? width / 2 / std::fabs(x) : width + height,
                                      std::fabs(y) > 1e-9 ? height / 2 / std::fabs(y) : width + height);
      const Pixel centre{point.x + x * (kGaps[ring] + to_edge), point.y + y * (kGaps[ring] + to_edge)};
      const Pixel edge{point.x + x * kGaps[ring], point.y + y * kGaps[ring]};
      const Box box = around(centre, width / 2, height / 2);
      const double turned = 1 - (x * preferred.x + y * preferred.y) / std::hypot(preferred.x, preferred.y);
      const double sum = cost(box, {point, edge}) + kGaps[ring] + kAwayFromPreferred * turned;
      if (sum >= least) continue;
      least = sum;
      best = {centre, ring > 0, edge};
      best_box = box;
    }
  }
  texts_.push_back(best_box);
  if (best.leader) leaders_.push_back({point, best.leader_end});
  return best;
}

}  // namespace tq
