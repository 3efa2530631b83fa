package dev.t5g2.demo.core

import java.io.File
import java.net.InetAddress
import java.security.KeyStore
import java.util.concurrent.Executors
import javax.net.ssl.HttpsURLConnection
import javax.net.ssl.KeyManagerFactory
import javax.net.ssl.SSLContext
import javax.net.ssl.TrustManagerFactory
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Before
import org.junit.BeforeClass
import org.junit.ClassRule
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** Downloads from a server with a certificate that was made for this test. */
class HttpsTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val before = HttpsURLConnection.getDefaultSSLSocketFactory()
    private val executor = Executors.newCachedThreadPool()
    private val bundle = TestBundle()
    private val library by lazy { ModelLibrary(File(temporary.root, "models")) }
    private lateinit var context: SSLContext
    private lateinit var server: TestServer

    @Before
    fun start() {
        context = contextWith(keys)
        val socket = context.serverSocketFactory.createServerSocket(0, 50, InetAddress.getByName("127.0.0.1"))
        server = TestServer(socket) { request ->
            if (request.path.startsWith("/away/")) {
                Reply(302, mapOf("Location" to "http://example.com/manifest.json"))
            } else {
                Reply(body = bundle.served().getValue(request.path))
            }
        }
    }

    private fun contextWith(keys: File): SSLContext {
        val store = KeyStore.getInstance(KeyStore.getDefaultType())
        keys.inputStream().use { store.load(it, PASSWORD.toCharArray()) }
        val own = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm())
        own.init(store, PASSWORD.toCharArray())
        val trusted = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm())
        trusted.init(store)
        return SSLContext.getInstance("TLS").apply { init(own.keyManagers, trusted.trustManagers, null) }
    }

    @After
    fun stop() {
        HttpsURLConnection.setDefaultSSLSocketFactory(before)
        if (::server.isInitialized) server.close()
        executor.shutdown()
    }

    private fun download(host: String, path: String): String {
        val address = BundleAddress.of("https://$host:${server.port}$path")
        val network = NetworkOptions(20_000, 20_000, listOf(60_000)) // a retry would take a minute
        return BundleDownload(address, library, network, executor).run { }
    }

    private fun trust() = HttpsURLConnection.setDefaultSSLSocketFactory(context.socketFactory)

    @Test
    fun `a bundle comes from a server that is trusted`() {
        trust()
        assertHolds(bundle, library.folderOf(download("localhost", "/b")))
    }

    @Test
    fun `a redirect from https to http is refused`() {
        trust()
        val complaint = failure { download("localhost", "/away") }
        assertTrue(complaint, "redirects to http://example.com/manifest.json, which is not an https address" in complaint)
    }

    @Test
    fun `a certificate that nobody vouches for, or of another host, is refused without trying again`() {
        assertTrue(failure { download("localhost", "/b") }.startsWith("localhost cannot be trusted ("))
        trust()
        assertTrue(failure { download("127.0.0.1", "/b") }.startsWith("127.0.0.1 cannot be trusted ("))
    }

    companion object {
        private const val PASSWORD = "of-this-test"
        private lateinit var keys: File

        @get:ClassRule
        @JvmStatic
        val shared = TemporaryFolder()

        @BeforeClass
        @JvmStatic
        fun makeKeys() {
            val keytool = File(System.getProperty("java.home"), "bin/keytool")
            assumeTrue("$keytool: nothing to make a certificate with", keytool.isFile)
            keys = File(shared.root, "keys")
            val options = "-genkeypair -keyalg EC -alias a -dname CN=test -ext san=dns:localhost -storepass $PASSWORD"
            val words = listOf(keytool.path) + options.split(' ') + listOf("-keystore", keys.path)
            val made = ProcessBuilder(words).redirectErrorStream(true).start()
            val said = made.inputStream.bufferedReader().readText()
            assertEquals(said, 0, made.waitFor())
        }
    }
}
