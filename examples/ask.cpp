// Asks a bundle a question through t5g2.hpp; the answer is printed as it is made.
//
//     c++ -std=c++20 -I runtime/include examples/ask.cpp -L LIB -lt5g2 -Wl,-rpath,LIB -o ask
//     ./ask out/nano-int4 'ISO date: the 3rd of March 2021'
//
// LIB: the folder of libt5g2.so.

#include <iostream>

#include "t5g2.hpp"

namespace {

int failed(const t5g2::Failure& failure) {
  std::cerr << "ask: " << failure.message << '\n';
  return failure.status == T5G2_USAGE ? 2 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return failed({T5G2_USAGE, "give a bundle's folder and a question"});

  const auto engine = t5g2::Engine::open(argv[1]);
  if (!engine) return failed(engine.error());
  const auto session = t5g2::Session::make(*engine, {.text = argv[2]});
  if (!session) return failed(session.error());
  auto generation = t5g2::Generation::start(*session, {.max_new_tokens = 64});
  if (!generation) return failed(generation.error());

  for (;;) {
    const auto token = generation->next();
    if (!token) return failed(token.error());
    if (!*token) break;
    std::cout << (*token)->text << std::flush;
  }
  std::cout << std::endl;
  return std::cout ? 0 : failed({T5G2_ERROR, "the answer could not be written"});
}
