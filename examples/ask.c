/* Asks a bundle a question through t5g2.h; the answer is printed as it is made.
 *
 *     cc -std=c11 -I runtime/include examples/ask.c -L LIB -lt5g2 -Wl,-rpath,LIB -o ask
 *     ./ask out/nano-int4 'ISO date: the 3rd of March 2021'
 *
 * LIB: the folder of libt5g2.so.
 */

#include <stdio.h>

#include "t5g2.h"

static t5g2_status ask(const char* bundle, const char* question) {
  t5g2_engine* engine = NULL;
  t5g2_session* session = NULL;
  t5g2_generation* generation = NULL;
  const t5g2_source source = {.text = question};
  t5g2_generation_options options;
  t5g2_generation_defaults(&options);
  options.max_new_tokens = 64;

  t5g2_status status = t5g2_engine_open(bundle, NULL, &engine);
  if (status == T5G2_OK) status = t5g2_session_new(engine, &source, &session);
  if (status == T5G2_OK) status = t5g2_generation_start(session, &options, &generation);
  t5g2_token token;
  while (status == T5G2_OK && (status = t5g2_generation_next(generation, &token)) == T5G2_OK) {
    fwrite(token.text, 1, token.text_length, stdout);
    fflush(stdout);
  }

  t5g2_generation_free(generation);
  t5g2_session_free(session);
  t5g2_engine_free(engine);
  return status;
}

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "ask: give a bundle's folder and a question\n");
    return 2;
  }
  const t5g2_status status = ask(argv[1], argv[2]);
  if (status != T5G2_DONE) {
    fprintf(stderr, "ask: %s\n", t5g2_error());
    return status == T5G2_USAGE ? 2 : 1;
  }
  puts("");
  if (fflush(stdout) == 0 && !ferror(stdout)) return 0;
  fprintf(stderr, "ask: the answer could not be written\n");
  return 1;
}
