package dev.t5g2.demo.core

import java.io.BufferedInputStream
import java.io.Closeable
import java.io.IOException
import java.io.OutputStream
import java.net.InetAddress
import java.net.ServerSocket
import java.net.Socket
import java.util.Collections
import kotlin.concurrent.thread

/** What a client asked: header names in lower case. */
class Request(val path: String, val headers: Map<String, String>) {
    /** Where the wanted range begins, or null: all is wanted. */
    val from: Int? get() = headers["range"]?.removePrefix("bytes=")?.removeSuffix("-")?.toInt()
}

/**
 * What the server answers: declares [length] and sends [body], of which it breaks off after [breakAfter] bytes, or sends
 * nothing more for as long as the server lives after [stallAfter].
 */
class Reply(
    val status: Int = 200,
    val headers: Map<String, String> = emptyMap(),
    val body: ByteArray = ByteArray(0),
    val length: Int? = body.size,
    val breakAfter: Int? = null,
    val stallAfter: Int? = null,
)

/** A plain HTTP server on this machine that answers as it is told to, connections lost in the middle and lies included. */
class TestServer(
    private val socket: ServerSocket = ServerSocket(0, 50, InetAddress.getByName("127.0.0.1")),
    private val answer: (Request) -> Reply,
) : Closeable {
    private val clients = Collections.synchronizedList(mutableListOf<Socket>())

    val requests: MutableList<Request> = Collections.synchronizedList(mutableListOf<Request>())
    val port = socket.localPort
    val url = "http://127.0.0.1:$port"

    init {
        thread(isDaemon = true) {
            while (true) {
                val client = try {
                    socket.accept()
                } catch (_: IOException) {
                    break
                }
                clients.add(client)
                thread(isDaemon = true) { serve(client) }
            }
        }
    }

    override fun close() {
        socket.close()
        synchronized(clients) { clients.forEach { it.close() } }
    }

    private fun serve(client: Socket) {
        client.use {
            try {
                val request = read(BufferedInputStream(client.getInputStream())) ?: return
                requests.add(request)
                send(client, answer(request))
            } catch (_: IOException) {
                // The client has gone.
            }
        }
    }

    private fun read(input: BufferedInputStream): Request? {
        val lines = generateSequence { line(input)?.takeIf { it.isNotEmpty() } }.toList()
        if (lines.isEmpty()) return null
        val headers = lines.drop(1).associate { it.substringBefore(":").lowercase() to it.substringAfter(":").trim() }
        return Request(lines[0].split(' ')[1], headers)
    }

    private fun line(input: BufferedInputStream): String? {
        val text = StringBuilder()
        while (true) {
            val byte = input.read()
            if (byte < 0) return null
            if (byte == '\n'.code) return text.toString()
            if (byte != '\r'.code) text.append(byte.toChar())
        }
    }

    private fun send(client: Socket, reply: Reply) {
        val output = client.getOutputStream()
        output.write("HTTP/1.1 ${reply.status} told\r\nConnection: close\r\n".toByteArray())
        reply.length?.let { output.write("Content-Length: $it\r\n".toByteArray()) }
        for ((name, value) in reply.headers) output.write("$name: $value\r\n".toByteArray())
        output.write("\r\n".toByteArray())
        val end = reply.breakAfter ?: reply.stallAfter ?: reply.body.size
        write(output, reply.body, minOf(end, reply.body.size))
        if (reply.stallAfter != null) while (!socket.isClosed) Thread.sleep(10)
    }

    private fun write(output: OutputStream, body: ByteArray, end: Int) {
        output.write(body, 0, end)
        output.flush()
    }
}

/** A good server of files by path: with ranges, and an ETag where [etag] gives one. [change] may spoil its answers. */
fun fileServer(
    files: Map<String, ByteArray>,
    etag: (path: String) -> String? = { null },
    change: (Request, Reply) -> Reply = { _, reply -> reply },
) = TestServer { request ->
    val bytes = files[request.path]
    val tag = etag(request.path)
    val from = request.from?.takeIf { request.headers["if-range"]?.equals(tag) != false }
    val headers = tag?.let { mapOf("ETag" to it) }.orEmpty()
    val reply = when {
        bytes == null -> Reply(404)
        from == null -> Reply(200, headers, bytes)
        from >= bytes.size -> Reply(416, headers + ("Content-Range" to "bytes */${bytes.size}"))
        else -> Reply(
            206,
            headers + ("Content-Range" to "bytes $from-${bytes.size - 1}/${bytes.size}"),
            bytes.copyOfRange(from, bytes.size),
        )
    }
    change(request, reply)
}
