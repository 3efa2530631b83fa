package dev.t5g2.demo

import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.Intent
import android.net.Uri
import android.os.Build
import android.os.Bundle
import android.view.View
import android.view.ViewGroup
import android.view.WindowInsets
import android.view.inputmethod.InputMethodManager
import android.widget.Toast
import kotlin.math.max

/** The app's only activity: four destinations, a bar that leads to them, and what they ask of other apps. */
class MainActivity : Activity() {
    val demo: Demo get() = (application as DemoApplication).demo

    private lateinit var content: ViewGroup
    private val screens = mutableMapOf<Place, Screen<*>>()
    private var place = Place.ASK
    private var started = false

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.activity_main)
        content = findViewById(R.id.content)
        keepClearOfBars(findViewById(R.id.root), findViewById(R.id.navigation))
        Place.entries.forEach { place -> findViewById<View>(place.button).setOnClickListener { go(place) } }
        go(saved?.getString(PLACE)?.let(Place::valueOf) ?: Place.ASK)
        saved?.getBundle(SCREEN)?.let { screen(place).restore(it) }
        // A text that was shared is taken once, not again when the activity is made anew.
        val old = intent.flags and Intent.FLAG_ACTIVITY_LAUNCHED_FROM_HISTORY != 0
        if (saved == null && !old) takeShared(intent)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        setIntent(intent)
        takeShared(intent)
    }

    override fun onStart() {
        super.onStart()
        started = true
        screen(place).start()
    }

    override fun onStop() {
        screen(place).stop()
        started = false
        demo.ask.saveNow()
        demo.document.saveNow()
        super.onStop()
    }

    override fun onDestroy() {
        screens.values.forEach { it.close() }
        super.onDestroy()
    }

    override fun onSaveInstanceState(out: Bundle) {
        super.onSaveInstanceState(out)
        out.putString(PLACE, place.name)
        out.putBundle(SCREEN, Bundle().also { screen(place).save(it) })
    }

    /** Shows a destination. */
    fun go(place: Place) {
        if (started) screen(this.place).stop()
        this.place = place
        val view = screen(place).view
        if (content.getChildAt(0) !== view) {
            hideKeyboard()
            content.removeAllViews()
            content.addView(view)
        }
        Place.entries.forEach { findViewById<View>(it.button).isSelected = it == place }
        if (started) screen(place).start()
    }

    private fun screen(place: Place): Screen<*> = screens.getOrPut(place) {
        when (place) {
            Place.ASK -> AskScreen(this, demo.ask)
            Place.DOCUMENT -> DocumentScreen(this, demo.document)
            Place.MODELS -> ModelsScreen(this, demo.models)
            Place.BENCHMARK -> BenchmarkScreen(this, demo.benchmark)
        }
    }

    fun inflate(layout: Int): View = layoutInflater.inflate(layout, content, false)

    /** Asks other apps for something, by the first of [intents] that one of them answers to; see [Screen.onResult]. */
    fun ask(request: Request, vararg intents: Intent) {
        for (intent in intents) {
            try {
                return startActivityForResult(intent, request.ordinal)
            } catch (_: ActivityNotFoundException) {
                continue
            }
        }
        tell(R.string.no_app)
    }

    /** Hands over to another app. */
    fun open(intent: Intent) = try {
        startActivity(intent)
    } catch (_: ActivityNotFoundException) {
        tell(R.string.no_app)
    }

    fun tell(text: Int) = Toast.makeText(applicationContext, text, Toast.LENGTH_LONG).show()

    fun hideKeyboard() {
        getSystemService(InputMethodManager::class.java).hideSoftInputFromWindow(content.windowToken, 0)
    }

    override fun onActivityResult(code: Int, result: Int, data: Intent?) {
        super.onActivityResult(code, result, data)
        val request = Request.entries.getOrNull(code) ?: return
        if (result == RESULT_OK) screen(request.place).onResult(request, data?.data)
    }

    private fun takeShared(intent: Intent) {
        if (intent.action != Intent.ACTION_SEND) return
        val file = sharedFile(intent)
        val text = intent.getCharSequenceExtra(Intent.EXTRA_TEXT)
        when {
            text != null -> demo.document.setText(text.toString())
            file != null -> (screen(Place.DOCUMENT) as DocumentScreen).openText(file)
            else -> return
        }
        go(Place.DOCUMENT)
    }

    private fun sharedFile(intent: Intent): Uri? {
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) {
            return intent.getParcelableExtra(Intent.EXTRA_STREAM, Uri::class.java)
        }
        @Suppress("DEPRECATION")
        return intent.getParcelableExtra(Intent.EXTRA_STREAM)
    }

    /**
     * From Android 15 on windows reach under the system's bars and the keyboard, and have to keep clear of them by themselves.
     * Before, the system does that.
     */
    private fun keepClearOfBars(root: View, navigation: View) {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.VANILLA_ICE_CREAM) return
        root.setOnApplyWindowInsetsListener { _, insets ->
            val bars = insets.getInsets(WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout())
            val keyboard = insets.getInsets(WindowInsets.Type.ime()).bottom
            root.setPadding(bars.left, bars.top, bars.right, keyboard)
            navigation.setPadding(0, 0, 0, max(0, bars.bottom - keyboard))
            WindowInsets.CONSUMED
        }
    }

    private companion object {
        const val PLACE = "place"
        const val SCREEN = "screen"
    }
}
