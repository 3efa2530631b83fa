package dev.t5g2.demo.core

/** Works with the chosen bundle. */
internal interface EngineUser {
    /** Another bundle was chosen; any thread. Null: none. */
    fun onChosen(bundle: InstalledBundle?)

    /** The engine is about to be closed: give up what belongs to it. On the engine's thread, between two uses. */
    fun onRelease()
}

/**
 * Opens the chosen bundle when it is first needed, keeps it open, and closes it when memory is short or another one is chosen;
 * it is opened again on demand. What runs meanwhile ends first, as all of it runs on one thread.
 */
class EngineHost(private val factory: EngineFactory, private val threads: Threads) {
    private val users = mutableListOf<EngineUser>()
    private var engine: OpenEngine? = null // only the engine's thread touches it

    /** What is open. On the engine's thread. */
    internal var opened: InstalledBundle? = null
        private set

    /** What [open] will open; any thread. */
    @Volatile
    internal var chosen: InstalledBundle? = null
        private set

    /** The system is short of memory: closes the engine as soon as it is idle. Any thread. */
    fun onTrimMemory() = threads.engine.execute(::close)

    internal fun add(user: EngineUser) {
        synchronized(users) { users.add(user) }
        user.onChosen(chosen)
    }

    /** Any thread. */
    internal fun choose(bundle: InstalledBundle?) {
        synchronized(users) {
            if (chosen == bundle) return
            chosen = bundle
            users.toList()
        }.forEach { it.onChosen(bundle) }
        threads.engine.execute { if (opened != null && opened != chosen) close() }
    }

    /** Runs [work] on the engine's thread, after what was given to it before. */
    internal fun run(work: () -> Unit) = threads.engine.execute(work)

    /** Whether [open] gives what is open already. On the engine's thread. */
    internal val isOpen: Boolean get() = engine != null && opened == chosen

    /** The engine of the chosen bundle; valid until the work that asked for it ends. On the engine's thread. */
    internal fun open(): OpenEngine {
        val wanted = chosen ?: throw Failure("No model is chosen; choose one.")
        engine?.let { if (opened == wanted) return it }
        close()
        val fresh = factory.open(wanted.folder)
        engine = fresh
        opened = wanted
        return fresh
    }

    /** On the engine's thread. */
    internal fun close() {
        val old = engine ?: return
        synchronized(users) { users.toList() }.forEach { it.onRelease() }
        engine = null
        opened = null
        old.close()
    }
}
