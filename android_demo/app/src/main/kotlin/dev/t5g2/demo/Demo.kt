package dev.t5g2.demo

import android.app.Application
import android.os.Handler
import android.os.Looper
import dev.t5g2.demo.core.AskPresenter
import dev.t5g2.demo.core.BenchProgram
import dev.t5g2.demo.core.BenchmarkPresenter
import dev.t5g2.demo.core.BuiltInBundle
import dev.t5g2.demo.core.DocumentPresenter
import dev.t5g2.demo.core.EngineHost
import dev.t5g2.demo.core.ModelLibrary
import dev.t5g2.demo.core.ModelsPresenter
import dev.t5g2.demo.core.T5g2Engine
import dev.t5g2.demo.core.Threads
import java.io.File

/** The parts of the app, put together. Made on the main thread, used from it; presenters may be called from any thread. */
class Demo(application: Application) {
    private val handler = Handler(Looper.getMainLooper())

    // Not in backups: models are large, and what was asked is nobody else's.
    private val folder: File = application.noBackupFilesDir

    private val device = AndroidDevice(application)

    val threads: Threads = Threads.start(main = { task -> handler.post(task) })

    val host = EngineHost(T5g2Engine.factory(cacheFolder = application.cacheDir), threads)

    val models = ModelsPresenter(
        ModelLibrary(File(folder, "models")),
        host,
        threads,
        device::memory,
        BuiltInBundle { name -> application.assets.open("$NANO/$name") },
    )

    val ask = AskPresenter(File(folder, "ask"), host, threads)

    val document = DocumentPresenter(File(folder, "document"), host, threads)

    val benchmark = BenchmarkPresenter(
        File(folder, "benchmark"),
        BenchProgram(
            File(application.applicationInfo.nativeLibraryDir, BENCH_PROGRAM),
            mapOf("XDG_CACHE_HOME" to application.cacheDir.path),
        ),
        host,
        threads,
        device::state,
    )

    private companion object {
        /** The bundle's folder in the assets. */
        const val NANO = "nano"

        /** A program under the name of a library: Android unpacks, and lets an app start, nothing else. */
        const val BENCH_PROGRAM = "libt5g2_bench_program.so"
    }
}
