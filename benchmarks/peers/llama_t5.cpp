// Times llama.cpp on an encoder-decoder model: source tokens and generated tokens a second, as one JSON object.
//
//     llama-t5 MODEL THREADS RUNS SOURCE PREFIX STEPS
//
// A run of the encoder is llama_encode of SOURCE ids. A run of the decoder is STEPS calls of llama_decode with one id each,
// all logits computed, from target position PREFIX on; the PREFIX ids before are decoded once, untimed. A first run of each
// is not counted. llama-bench can't do this: it never calls llama_encode.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "llama.h"

namespace {

double now_s() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void check(bool fine, const char * what) {
    if (!fine) {
        std::fprintf(stderr, "llama-t5: %s failed\n", what);
        std::exit(1);
    }
}

// amount / seconds of each of `runs` calls, after one that is not counted, as a JSON list.
std::string rates(int runs, double amount, const std::function<void()> & work) {
    work();
    std::string list;
    for (int run = 0; run < runs; run++) {
        const double start = now_s();
        work();
        list += (run ? ", " : "") + std::to_string(amount / (now_s() - start));
    }
    return "[" + list + "]";
}

// A batch of ids at consecutive positions; logits of the last only, as in generation.
llama_batch batch_of(const std::vector<llama_token> & ids, int first_position) {
    llama_batch batch = llama_batch_init(static_cast<int>(ids.size()), 0, 1);
    batch.n_tokens = static_cast<int>(ids.size());
    for (int i = 0; i < batch.n_tokens; i++) {
        batch.token[i] = ids[i];
        batch.pos[i] = first_position + i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = i == batch.n_tokens - 1;
    }
    return batch;
}

std::vector<llama_token> some_ids(int count, int vocab) {
    std::vector<llama_token> ids(count);
    for (int i = 0; i < count; i++) {
        ids[i] = static_cast<llama_token>((1000 + 7919LL * i) % vocab);
    }
    return ids;
}

void quiet(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) {
        std::fputs(text, stderr);
    }
}

}  // namespace

int main(int argc, char ** argv) {
    check(argc == 7, "reading MODEL THREADS RUNS SOURCE PREFIX STEPS");
    const char * path = argv[1];
    const int threads = std::atoi(argv[2]), runs = std::atoi(argv[3]);
    const int source = std::atoi(argv[4]), prefix = std::atoi(argv[5]), steps = std::atoi(argv[6]);
    llama_log_set(quiet, nullptr);

    const double start = now_s();
    llama_backend_init();
    llama_model * model = llama_model_load_from_file(path, llama_model_default_params());
    check(model && llama_model_has_encoder(model) && llama_model_has_decoder(model), "loading an encoder-decoder model");
    llama_context_params options = llama_context_default_params();
    options.n_ctx = std::max(source, prefix + steps);  // batches are cut to it, and the encoder takes its source in one
    options.n_batch = options.n_ubatch = options.n_ctx;
    options.n_threads = options.n_threads_batch = threads;
    llama_context * context = llama_init_from_model(model, options);
    check(context, "making a context");
    const double load_s = now_s() - start;

    const int vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    const std::vector<llama_token> ids = some_ids(std::max(source, prefix + steps), vocab);
    llama_batch encoder_batch = batch_of({ids.begin(), ids.begin() + source}, 0);
    const std::string encode_runs =
        rates(runs, source, [&] { check(llama_encode(context, encoder_batch) == 0, "llama_encode"); });

    llama_batch prefix_batch = batch_of({ids.begin(), ids.begin() + prefix}, 0);
    check(llama_decode(context, prefix_batch) == 0, "llama_decode of the prefix");
    llama_memory_t cache = llama_get_memory(context);
    float sum = 0;  // of a logit of each step, so that a model that yields none is seen
    const std::string decode_runs = rates(runs, steps, [&] {
        check(llama_memory_seq_rm(cache, 0, prefix, -1), "going back to the prefix");
        for (int position = prefix; position < prefix + steps; position++) {
            llama_batch step = batch_of({ids[position]}, position);
            check(llama_decode(context, step) == 0, "llama_decode");
            sum += llama_get_logits_ith(context, -1)[vocab - 1];
            llama_batch_free(step);
        }
    });
    check(sum != 0 && sum == sum, "computing logits");

    std::printf("{\"load_s\": %f, \"encode_runs\": %s, \"decode_runs\": %s}\n", load_s, encode_runs.c_str(),
                decode_runs.c_str());
    llama_batch_free(encoder_batch);
    llama_batch_free(prefix_batch);
    llama_free(context);
    llama_model_free(model);
}
