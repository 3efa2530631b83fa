plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "dev.t5g2.demo"
    compileSdk = libs.versions.compile.sdk.get().toInt()
    ndkVersion = libs.versions.ndk.get()

    defaultConfig {
        applicationId = "dev.t5g2.demo"
        minSdk = libs.versions.min.sdk.get().toInt()
        targetSdk = libs.versions.target.sdk.get().toInt()
        versionCode = 1
        versionName = "0.1.0"
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
        externalNativeBuild {
            cmake {
                targets += listOf("t5g2_jni", "t5g2-bench")
            }
        }
    }

    externalNativeBuild {
        cmake {
            path = file("../engine/src/main/cpp/CMakeLists.txt")
            version = libs.versions.cmake.get()
        }
    }

    buildTypes {
        release {
            optimization { enable = true } // R8; keep rules are in src/main/keepRules
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }

    androidResources {
        noCompress += "pte" // weights do not shrink; stored, they are copied out faster
    }

    packaging {
        // The benchmark is a program of its own, libt5g2_bench_program.so, that is started from the folder of native
        // libraries. Android unpacks them there only when they are packaged the old way.
        jniLibs { useLegacyPackaging = true }
    }

    lint {
        warningsAsErrors = true
        disable += "GradleDependency" // versions are chosen, not whatever is newest
    }
}

dependencies {
    implementation(project(":core"))
}

/** Puts a bundle of the nano checkpoint into the assets, made by t5g2-export or copied from the folder -Pt5g2.nano=FOLDER. */
abstract class NanoBundle @Inject constructor(private val files: FileSystemOperations, private val run: ExecOperations) :
    DefaultTask() {

    /** Of a bundle that was exported before; unset: export one. */
    @get:InputFiles
    @get:PathSensitive(PathSensitivity.RELATIVE)
    abstract val ready: ConfigurableFileCollection

    /** What the export reads: the checkpoint and the exporter's sources. */
    @get:InputFiles
    @get:PathSensitive(PathSensitivity.RELATIVE)
    abstract val sources: ConfigurableFileCollection

    @get:Internal
    abstract val repository: DirectoryProperty

    @get:OutputDirectory
    abstract val assets: DirectoryProperty

    @TaskAction
    fun make() {
        val bundle = assets.get().dir("nano").asFile
        files.delete { delete(assets) }
        if (ready.isEmpty) export(bundle) else copy(ready.singleFile, bundle)
    }

    private fun copy(folder: File, bundle: File) {
        if (!folder.resolve("manifest.json").isFile) {
            throw GradleException("$folder is not a bundle: it has no manifest.json; $COMMANDS")
        }
        files.copy { from(folder).into(bundle) }
    }

    private fun export(bundle: File) {
        bundle.parentFile.mkdirs()
        val root = repository.get().asFile
        val own = root.resolve(".venv/bin/t5g2-export")
        val program = if (own.canExecute()) own.path else "t5g2-export"
        try {
            run.exec { commandLine(program, "--size", "nano", "--quant", "int4", "--output", bundle.path) }
        } catch (error: Exception) {
            throw GradleException("$program could not make the bundle that the app ships (${error.message}); $COMMANDS", error)
        }
    }

    private companion object {
        const val COMMANDS = "set up the repository with `make demo`, or make the bundle elsewhere with " +
            "`t5g2-export --size nano --quant int4 --output FOLDER` and pass -Pt5g2.nano=FOLDER"
    }
}

val nanoBundle = tasks.register<NanoBundle>("nanoBundle") {
    description = "Makes or copies the nano bundle that is shipped in the app's assets"
    val root = rootProject.layout.projectDirectory.dir("..")
    val given = providers.gradleProperty("t5g2.nano").orNull
    repository = root
    if (given != null) {
        ready.from(rootProject.file(given))
    } else {
        sources.from(root.dir("nano/checkpoint"))
        sources.from(listOf("export", "quant").map { fileTree(root.dir(it)) { include("**/*.py") } })
    }
}

androidComponents {
    onVariants { it.sources.assets?.addGeneratedSourceDirectory(nanoBundle, NanoBundle::assets) }
}
