package dev.t5g2.engine

/**
 * Something went wrong: a bundle, a file or an input is not as it must be, or memory is short. The message is one line that
 * names the input, says what was wrong with it and what to do.
 */
open class EngineException(message: String) : Exception(message)

/** An argument that no input could satisfy, such as a negative temperature. */
class EngineUsageException(message: String) : EngineException(message)
