package dev.t5g2.demo.core

/** Runs work again after what may pass, waiting longer each time, for as long as it gets anywhere. */
internal class Retry(private val delays: List<Long>, private val stopper: Stopper) {
    /**
     * @param progress grows while [work] gets on. Only what is further than ever counts: a server that always begins anew and
     *   always breaks off helps nobody.
     * @param onWait told why it waits, and for how long.
     */
    fun <T> run(progress: () -> Long = { 0 }, onWait: (String) -> Unit = {}, work: () -> T): T {
        var tries = 0
        var best = progress()
        while (true) {
            try {
                return work()
            } catch (error: Transient) {
                if (progress() > best) {
                    best = progress()
                    tries = 0
                }
                val reason = error.message!!
                val delay = delays.getOrNull(tries++)
                    ?: throw Failure("${reason.replaceFirstChar(Char::uppercase)}; check the network and try again.", error)
                onWait("$reason; trying again in ${(delay + 999) / 1000} s")
                stopper.sleep(delay)
            }
        }
    }
}
