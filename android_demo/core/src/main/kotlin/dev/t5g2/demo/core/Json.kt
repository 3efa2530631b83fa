package dev.t5g2.demo.core

import java.io.IOException
import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject

/** What is read from a file that the app wrote; null where it is not there, or damaged. */
internal fun <T> fromOurFile(read: () -> T?): T? = try {
    read()
} catch (_: JSONException) {
    null
} catch (_: IllegalArgumentException) {
    null
} catch (_: IOException) {
    null
}

// org.json turns texts into numbers and numbers into texts where asked to; a file that needs that is not one of ours.

internal fun JSONObject.text(key: String): String = get(key) as? String ?: throw wrong(key, "text")

internal fun JSONObject.textOrNull(key: String): String? = if (isNull(key)) null else text(key)

internal fun JSONObject.whole(key: String): Long = when (val value = get(key)) {
    is Int -> value.toLong()
    is Long -> value
    else -> throw wrong(key, "whole number")
}

internal fun JSONObject.whole(key: String, range: IntRange): Int {
    val value = whole(key)
    if (value < range.first || value > range.last) throw wrong(key, "number from ${range.first} to ${range.last}")
    return value.toInt()
}

internal fun JSONObject.number(key: String): Double =
    (get(key) as? Number)?.toDouble() ?: throw wrong(key, "number")

internal fun JSONObject.numberOrNull(key: String): Double? = if (isNull(key)) null else number(key)

internal fun JSONObject.flag(key: String): Boolean = get(key) as? Boolean ?: throw wrong(key, "truth value")

/** The names of its values, in no order. */
internal fun JSONObject.keyList(): List<String> = keys().asSequence().map { it.toString() }.toList()

internal fun JSONObject.objectOrNull(key: String): JSONObject? = if (isNull(key)) null else getJSONObject(key)

internal fun JSONArray.objects(): List<JSONObject> = (0 until length()).map { getJSONObject(it) }

/** Puts a value, or null as JSON has it. */
internal fun JSONObject.putOrNull(key: String, value: Any?): JSONObject = put(key, value ?: JSONObject.NULL)

private fun wrong(key: String, wanted: String) = IllegalArgumentException("$key is no $wanted")
