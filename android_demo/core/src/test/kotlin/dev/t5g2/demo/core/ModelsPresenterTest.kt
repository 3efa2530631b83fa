package dev.t5g2.demo.core

import java.io.File
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotNull
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** With real threads and a real server. */
class ModelsPresenterTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val threads = Threads.start(mainThread())
    private val engine = FakeEngine()
    private val host = EngineHost(engine, threads)
    private val folder by lazy { File(temporary.root, "models") }
    private val bundle = TestBundle()
    private val nano = TestBundle(name = "nano")
    private var memory = Memory(8_000_000_000, 4_000_000_000)
    private var free = Long.MAX_VALUE
    private val servers = mutableListOf<TestServer>()
    private val id = "tiny-int4-g32"

    @After
    fun stop() {
        servers.forEach { it.close() }
    }

    private fun serve(change: (Request, Reply) -> Reply = { _, reply -> reply }) =
        fileServer(bundle.served(), change = change).also { servers.add(it) }

    private fun start(): ModelsPresenter {
        val builtIn = BuiltInBundle { (nano.files + ("manifest.json" to nano.manifest)).getValue(it).inputStream() }
        val network = NetworkOptions(20_000, 20_000, listOf(1, 1))
        val models = ModelsPresenter(ModelLibrary(folder), host, threads, { memory }, builtIn, network) { free }
        await("the library is read") { !models.state.loading }
        return models
    }

    private fun ModelsPresenter.lookUpAndWait(url: String) {
        lookUp(url)
        await("it is looked up") { !state.lookingUp }
    }

    private fun ModelsPresenter.awaitEnd() = await("the transfer ends") { state.transfer == null }

    @Test
    fun `the app's own model is there and chosen at the first start`() {
        val models = start()
        assertEquals(listOf("nano"), models.state.bundles.map { it.id })
        assertEquals("nano", models.state.chosen)
        assertEquals("nano", host.chosen?.id)
        models.delete("nano")
        models.refresh()
        Thread.sleep(50)
        assertHolds(nano, File(folder, "nano"))
    }

    @Test
    fun `a model is looked up, downloaded and chosen`() {
        val models = start()
        models.lookUpAndWait(serve().url + "/b")
        val offer = models.state.offer!!
        assertEquals("tiny int4-g32", offer.title)
        assertEquals(371_000L, offer.bytes)
        assertEquals("someone/tiny", offer.checkpoint)
        assertEquals(emptyList<String>(), offer.problems + offer.warnings)
        models.download()
        models.awaitEnd()
        assertNull(models.state.error)
        assertEquals(listOf("nano", id), models.state.bundles.map { it.id })
        assertEquals("what was chosen stays", "nano", models.state.chosen)
        models.choose(id)
        await("it is chosen") { models.state.chosen == id }
        assertEquals(id, host.chosen?.id)
        assertEquals("and after a restart", id, start().state.chosen)
    }

    @Test
    fun `memory and space are checked before`() {
        val models = start()
        val url = serve().url + "/b"
        memory = Memory(400_000, 300_000)
        models.lookUpAndWait(url)
        assertEquals(
            listOf("It takes 0.4 MB of memory, and the device has 0.4 MB for all apps together; choose a smaller model."),
            models.state.offer!!.problems,
        )
        models.download()
        Thread.sleep(20)
        assertNull("it is not downloaded", models.state.transfer)
        memory = Memory(8_000_000, 300_000)
        models.lookUpAndWait(url)
        assertEquals(
            listOf("It takes 0.4 MB of memory, and 0.3 MB are free now; close other apps before using it."),
            models.state.offer!!.warnings,
        )
        free = 50_000_000
        models.lookUpAndWait(url)
        assertTrue(models.state.offer!!.problems.single().startsWith("0.4 MB are to be stored and 50.0 MB are free"))
    }

    @Test
    fun `paused, killed, resumed`() {
        val server = serve { request, reply ->
            val stalls = request.path == "/b/text.pte" && request.from == null
            if (stalls) Reply(200, body = reply.body, stallAfter = 100_000) else reply
        }
        val models = start()
        models.lookUpAndWait(server.url + "/b")
        models.download()
        await("bytes come") { models.state.transfer?.bytesDone == 100_000L }
        val transfer = models.state.transfer!!
        assertEquals("text.pte", transfer.file)
        assertEquals(371_000L, transfer.bytesTotal)
        models.pause()
        models.pause()
        models.awaitEnd()
        assertNull(models.state.error)
        assertEquals(100_000L, models.state.partials.single().bytesDone)

        val again = start() // another life
        val partial = again.state.partials.single()
        assertEquals(100_000L, partial.bytesDone)
        again.resume(partial.id)
        again.resume(partial.id)
        again.awaitEnd()
        assertNull(again.state.error)
        assertHolds(bundle, File(folder, id))
        assertEquals(listOf(null, 100_000), server.requests.filter { it.path == "/b/text.pte" }.map { it.from })
        assertEquals(emptyList<PartialBundle>(), again.state.partials)
    }

    @Test
    fun `cancelled, nothing stays`() {
        val models = start()
        val server = serve { request, reply ->
            if (request.path == "/b/text.pte") Reply(200, body = reply.body, stallAfter = 100_000) else reply
        }
        models.lookUpAndWait(server.url + "/b")
        models.download()
        await("bytes come") { models.state.transfer?.bytesDone == 100_000L }
        models.discard(id)
        await("what is being written is not discarded") { models.state.error != null }
        models.lookUp(server.url + "/b")
        assertFalse("one at a time", models.state.lookingUp)
        models.cancel()
        models.awaitEnd()
        assertEquals(setOf("nano", "chosen"), folder.list().orEmpty().toSet())
        assertEquals(emptyList<PartialBundle>(), models.state.partials)
    }

    @Test
    fun `a download that fails says why and can be resumed or discarded`() {
        val server = serve { request, reply -> if (request.path == "/b/vision.pte") Reply(404) else reply }
        val models = start()
        models.lookUpAndWait(server.url + "/b")
        models.download()
        models.awaitEnd()
        assertTrue(models.state.error!!, models.state.error!!.endsWith("vision.pte does not exist (404); check the address."))
        assertEquals(301_000L, models.state.partials.single().bytesDone)
        models.dismissError()
        assertNull(models.state.error)
        models.discard(id)
        await("it is discarded") { models.state.partials.isEmpty() }
        assertEquals(setOf("nano", "chosen"), folder.list().orEmpty().toSet())
    }

    @Test
    fun `an address that cannot be looked up says why`() {
        val models = start()
        models.lookUp("hello")
        assertTrue(models.state.error!!.startsWith("'hello' is not a web address"))
        models.lookUpAndWait(serve { _, _ -> Reply(404) }.url)
        assertTrue("does not exist" in models.state.error!!)
        assertNull(models.state.offer)
    }

    @Test
    fun `a zip is imported`() {
        val models = start()
        models.importZip("my.zip") { bundle.zip("tiny/").inputStream() }
        models.awaitEnd()
        assertNull(models.state.error)
        assertEquals(listOf("nano", id), models.state.bundles.map { it.id })
        models.importZip("bad.zip") { "hello".byteInputStream() }
        models.awaitEnd()
        assertEquals("bad.zip holds no manifest.json; zip a bundle's folder.", models.state.error)
    }

    @Test
    fun `deleting the chosen model chooses another one`() {
        val models = start()
        models.importZip("my.zip") { bundle.zip().inputStream() }
        models.awaitEnd()
        models.choose(id)
        await("it is chosen") { models.state.chosen == id }
        models.delete(id)
        await("it is deleted") { models.state.bundles.size == 1 }
        assertEquals("nano", models.state.chosen)
        assertEquals("nano", host.chosen?.id)
    }

    @Test
    fun `a damaged model is not chosen, and can be deleted`() {
        bundle.write(File(folder, "broken"))
        File(folder, "broken/text.pte").delete()
        val models = start()
        val broken = models.state.bundles.single { it.id == "broken" }
        assertNotNull(broken.damage)
        models.choose("broken")
        models.delete("broken")
        await("it is deleted") { models.state.bundles.size == 1 }
        assertEquals("nano", models.state.chosen)
    }
}
