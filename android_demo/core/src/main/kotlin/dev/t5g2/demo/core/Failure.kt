package dev.t5g2.demo.core

/** Something that the user is told in [message], one sentence: what was wrong with which input, and what to do. */
class Failure(message: String, cause: Throwable? = null) : Exception(message, cause)

/** What the user is told of any error. */
internal fun Throwable.forUser(): String = when (this) {
    is Failure -> message!!
    is OutOfMemoryError -> "There is not enough memory; close other apps, or choose a smaller model."
    else -> message?.takeIf { it.isNotBlank() } ?: "Unexpected ${javaClass.simpleName}; please report it."
}

/**
 * Runs [work] and gives [onError] what went wrong, memory and the engine's library included: on Android a thread that ends by
 * an error ends the app.
 */
internal inline fun guarded(onError: (Throwable) -> Unit, work: () -> Unit) {
    try {
        work()
    } catch (error: Exception) {
        onError(error)
    } catch (error: OutOfMemoryError) {
        onError(error)
    } catch (error: LinkageError) { // the library is missing or for another CPU
        onError(error)
    }
}
