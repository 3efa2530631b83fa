package dev.t5g2.demo.core

import java.io.Closeable
import java.io.IOException
import java.io.InputStream
import java.net.HttpURLConnection
import java.net.MalformedURLException
import java.net.URL
import java.util.Locale
import java.util.concurrent.Executor
import javax.net.ssl.SSLHandshakeException
import javax.net.ssl.SSLPeerUnverifiedException

/**
 * How downloads use the network; times in milliseconds.
 *
 * @property connectTimeout for a connection to be made.
 * @property readTimeout without a byte, after which a connection counts as lost.
 * @property retryDelays before each new try without any progress; after the last one the download ends.
 */
class NetworkOptions(
    val connectTimeout: Int = 15_000,
    val readTimeout: Int = 30_000,
    val retryDelays: List<Long> = listOf(1_000, 2_000, 4_000, 8_000, 16_000, 30_000),
)

/** Something that may be different at the next try, such as a lost connection. */
internal class Transient(message: String, cause: IOException? = null) : IOException(message, cause)

/** An answer of a server: [code] is 200, 206 or 416. To be closed. */
internal class HttpAnswer(private val connection: HttpURLConnection, private val executor: Executor) : Closeable {
    val code: Int = connection.responseCode
    val body: InputStream get() = connection.inputStream

    /** Bytes of [body]; null: the server does not say. */
    val length: Long? get() = connection.getHeaderField("Content-Length")?.trim()?.toLongOrNull()

    /** Which version of the file it is, for If-Range: a strong ETag, else null. */
    val version: String? get() = connection.getHeaderField("ETag")?.takeIf { it.startsWith("\"") }

    /** Position of the first byte and length of the whole file, of a 206; null where the server does not say. */
    val range: Pair<Long, Long?>?
        get() {
            val match = RANGE.matchEntire(connection.getHeaderField("Content-Range").orEmpty().trim()) ?: return null
            val start = match.groupValues[1].toLongOrNull() ?: return null
            return start to match.groupValues[2].toLongOrNull()
        }

    /** Ends the connection, on another thread: that can take as long as a read that is under way. */
    override fun close() = executor.execute(connection::disconnect)

    private companion object {
        val RANGE = Regex("bytes (\\d+)-\\d+/(\\d+|\\*)")
    }
}

/** Asks servers for files, over HTTPS, until [stopper] stops it. What waits for the network waits on threads of [executor]. */
internal class Http(private val options: NetworkOptions, private val stopper: Stopper, private val executor: Executor) {
    /** Follows redirects. Throws [Failure] for what no retry would change, [Transient] for the rest, and [Stopped]. */
    fun get(address: URL, headers: Map<String, String> = emptyMap()): HttpAnswer {
        var url = address
        repeat(MOST_REDIRECTS) {
            checkAllowed(url, address)
            val connection = ask(url, headers)
            if (connection.responseCode !in REDIRECTS) return accept(connection, url)
            val location = connection.getHeaderField("Location")
            close(connection)
            url = try {
                URL(url, location ?: throw Failure("$url redirects to nowhere; check the address."))
            } catch (error: MalformedURLException) {
                throw Failure("$url redirects to '$location', which is no web address; check the address.", error)
            }
        }
        throw Failure("$address redirects more than $MOST_REDIRECTS times; check the address.")
    }

    /** Reads more of a body, as [InputStream.read]. Throws [Transient] where the connection is lost, and [Stopped]. */
    fun read(answer: HttpAnswer, buffer: ByteArray): Int = waiting("the connection was lost") { answer.body.read(buffer) }

    private fun ask(url: URL, headers: Map<String, String>): HttpURLConnection {
        val connection = url.openConnection() as HttpURLConnection
        connection.connectTimeout = options.connectTimeout
        connection.readTimeout = options.readTimeout
        connection.instanceFollowRedirects = false
        connection.useCaches = false
        connection.setRequestProperty("Accept-Encoding", "identity") // lengths and ranges are of the file itself
        for ((name, value) in headers) connection.setRequestProperty(name, value)
        try {
            waiting("${url.host} does not answer") { connection.responseCode }
        } catch (error: Transient) {
            if (error.cause !is SSLHandshakeException && error.cause !is SSLPeerUnverifiedException) throw error
            val reason = error.cause?.message
            throw Failure("${url.host} cannot be trusted ($reason); check the address, and the date of the device.", error)
        } catch (stop: Stopped) {
            close(connection)
            throw stop
        }
        return connection
    }

    private fun close(connection: HttpURLConnection) = executor.execute(connection::disconnect)

    private fun <T> waiting(complaint: String, work: () -> T): T = try {
        stopper.waitFor(executor, work)
    } catch (error: IOException) {
        throw Transient("$complaint (${error.message ?: error.javaClass.simpleName})", error)
    }

    private fun accept(connection: HttpURLConnection, url: URL): HttpAnswer {
        val code = connection.responseCode
        if (code in ANSWERS) return HttpAnswer(connection, executor)
        close(connection)
        throw when {
            code == HttpURLConnection.HTTP_NOT_FOUND || code == HttpURLConnection.HTTP_GONE ->
                Failure("$url does not exist ($code); check the address.")
            code == HttpURLConnection.HTTP_UNAUTHORIZED || code == HttpURLConnection.HTTP_FORBIDDEN ->
                Failure("$url is not public ($code); download it elsewhere and import it as a .zip.")
            code in TRANSIENT || code >= HttpURLConnection.HTTP_INTERNAL_ERROR ->
                Transient("${url.host} is busy or broken ($code)")
            else -> Failure("${url.host} answers $code to $url; check the address.")
        }
    }

    companion object {
        private const val MOST_REDIRECTS = 10
        const val NOT_SATISFIABLE = 416
        private val ANSWERS = setOf(HttpURLConnection.HTTP_OK, HttpURLConnection.HTTP_PARTIAL, NOT_SATISFIABLE)
        private val REDIRECTS = setOf(301, 302, 303, 307, 308)
        private val TRANSIENT = setOf(408, 425, 429)

        /** Where http is allowed: the device itself (`adb reverse`), and the computer that an emulator runs on. */
        private val LOCAL = setOf("localhost", "127.0.0.1", "[::1]", "10.0.2.2")

        /** Throws [Failure] for an address that may not be asked: only HTTPS keeps others from changing what comes. */
        fun checkAllowed(url: URL, asked: URL = url) {
            if (url.protocol == "https" || url.protocol == "http" && url.host.lowercase(Locale.ROOT) in LOCAL) return
            val where = if (url === asked) "$url" else "$asked redirects to $url, which"
            throw Failure("$where is not an https address; Android apps load from those only. Give one, or import a .zip.")
        }
    }
}
