package dev.t5g2.demo.core

import org.json.JSONObject

// How answers and their options are kept in files.

internal fun AnswerState.toJson(): JSONObject = JSONObject()
    .put("question", question)
    .put("text", text)
    .putOrNull("end", end?.name)
    .put("tokens", tokens)
    .putOrNull("tokens_per_second", tokensPerSecond)
    .putOrNull("encode_seconds", encodeSeconds)

/** An answer that was still being written when it was kept was interrupted by the end of the app. */
internal fun answerFrom(json: JSONObject) = AnswerState(
    question = json.text("question"),
    text = json.text("text"),
    end = json.textOrNull("end")?.let(AnswerEnd::valueOf) ?: AnswerEnd.INTERRUPTED,
    tokens = json.whole("tokens").toInt(),
    tokensPerSecond = json.numberOrNull("tokens_per_second"),
    encodeSeconds = json.numberOrNull("encode_seconds"),
)

internal fun AnswerOptions.toJson(): JSONObject = JSONObject()
    .put("max_new_tokens", maxNewTokens)
    .put("temperature", temperature.toDouble())
    .put("top_p", topP.toDouble())
    .put("beams", beams)

internal fun optionsFrom(json: JSONObject) = AnswerOptions(
    maxNewTokens = json.whole("max_new_tokens").toInt(),
    temperature = json.number("temperature").toFloat(),
    topP = json.number("top_p").toFloat(),
    beams = json.whole("beams").toInt(),
)
