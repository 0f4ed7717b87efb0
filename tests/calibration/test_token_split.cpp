#include <doctest/doctest.h>

#include "calibration/token_split.h"
#include "core/error.h"

using tq::Holdout;
using tq::TokenSplit;

TEST_CASE("a split covers every token once, in runs of one part") {
  for (const auto holdout : {Holdout::tail, Holdout::blocks}) {
    for (const std::size_t tokens : {2u, 3u, 127u, 128u, 129u, 256u, 1000u, 1024u, 100001u}) {
      CAPTURE(tokens);
      const TokenSplit split(holdout, tokens);
      std::size_t held_out = 0, runs = 0;
      for (std::size_t token = 0; token < tokens; ++runs) {
        const std::size_t end = split.run_end(token);
        REQUIRE(end > token);
        REQUIRE(end <= tokens);
        for (std::size_t t = token; t < end; ++t) REQUIRE(split.held_out(t) == split.held_out(token));
        if (split.held_out(token)) held_out += end - token;
        token = end;
      }
      CHECK(split.held_out_tokens() == held_out);
      CHECK(split.fit_tokens() + held_out == tokens);
      CHECK(split.fit_tokens() > 0);
      CHECK(held_out > 0);
      if (holdout == Holdout::tail) CHECK(runs == 2);
    }
  }
  CHECK_THROWS_AS(TokenSplit(Holdout::tail, 1), tq::InputError);
}
