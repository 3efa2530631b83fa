"""The Android app: resources and code name only what exists, permissions, who imports what; then what becomes of its sources.

Resources are linked, the modules compiled against Android's class library, dexed, packed and signed, without Gradle and the
native libraries: with the SDK in $ANDROID_HOME (a platform and build-tools, as Android Studio installs them), else with what
Debian has.
"""

import hashlib
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path

import android_api
import android_tools as tools
import pytest

APP = tools.DEMO / "app/src/main"
RESOURCES = APP / "res"
CODE = APP / "kotlin"
ANDROID = "{http://schemas.android.com/apk/res/android}"
XML = [APP / "AndroidManifest.xml", *sorted(RESOURCES.rglob("*.xml"))]
KOTLIN = sorted(CODE.rglob("*.kt"))


def parsed(file: Path) -> ElementTree.Element:
    return ElementTree.parse(file).getroot()


@cache
def defined() -> set[tuple[str, str]]:
    """Resources by type and name, ids among them; names as code writes them."""
    found = set()
    for file in sorted(RESOURCES.rglob("*.xml")):
        kind = file.parent.name.split("-")[0]
        if kind == "values":
            found |= {(element.tag, element.get("name").replace(".", "_")) for element in parsed(file)}
        else:
            found.add((kind, file.stem))
        found |= {("id", name) for name in re.findall(r'"@\+id/(\w+)"', file.read_text())}
    return found


def references(file: Path) -> set[tuple[str, str]]:
    text = file.read_text()
    if file.suffix == ".kt":
        return set(re.findall(r"\bR\.(\w+)\.(\w+)", text))
    parents = set(re.findall(r'parent="((?!android:)[\w.]+)"', text))
    dotted = {name.rpartition(".")[0] for name in re.findall(r'<style name="([\w.]+)">', text) if "." in name}
    found = set(re.findall(r"@(?!android:)(\w+)/([\w.]+)", text)) | {("style", name) for name in parents | dotted}
    return {(kind, name.replace(".", "_")) for kind, name in found}


@pytest.mark.parametrize("file", [*XML, *KOTLIN], ids=lambda file: str(file.relative_to(APP)))
def test_every_reference_leads_somewhere(file):
    assert references(file) - defined() == set()


def test_every_resource_is_used():
    used = set().union(*(references(file) for file in [*XML, *KOTLIN]))
    unused = {(kind, name) for kind, name in defined() - used if kind != "id"}
    assert unused == set()


def test_every_id_is_used():
    # Code looks it up, or the system keeps something by it, such as how far a screen was scrolled.
    used = {name for file in KOTLIN for kind, name in references(file) if kind == "id"}
    unused = {name for kind, name in defined() if kind == "id"} - used
    assert {name for name in unused if not name.endswith("_screen")} == set()


@pytest.mark.parametrize("file", XML, ids=lambda file: str(file.relative_to(APP)))
def test_texts_are_in_the_strings(file):
    attributes = ("text", "hint", "contentDescription", "label", "title")
    for element in parsed(file).iter():
        for attribute in attributes:
            assert element.get(ANDROID + attribute, "@string/").startswith("@string/")


@pytest.mark.parametrize("file", KOTLIN, ids=lambda file: file.name)
def test_no_texts_in_the_code(file):
    """What is shown comes from the strings: no literal with two words, but in messages of exceptions and patterns."""
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", file.read_text(), flags=re.DOTALL)
    code = re.sub(r'(Exception|checkNotNull|check|require)\w*\([^"]*"[^"]*"|\{ "[^"]*" \}|@\w+\("[^"]*"\)', "", code)
    assert re.findall(r'"[^"\n]*[a-z]{3,} [a-z]{2,}[^"\n]*"', code) == []


def test_pictures_have_descriptions():
    for file in sorted(RESOURCES.glob("layout/*.xml")):
        for element in parsed(file).iter("ImageView"):
            assert element.get(ANDROID + "contentDescription"), file


def test_the_system_keeps_no_state_of_repeated_or_bound_views():
    """It keeps state by id: that of one card would come back in all, and long texts do not fit into what it keeps."""
    for file in sorted(RESOURCES.glob("layout/*.xml")):
        for element in parsed(file).iter():
            repeated = file.name.startswith("item_") and (
                element.tag in ("RadioButton", "CheckBox", "EditText", "ScrollView")
                or element.get(ANDROID + "textIsSelectable")
            )
            bound = file.name.startswith("screen_") and element.tag == "EditText"
            if repeated or bound:
                assert element.get(ANDROID + "saveEnabled") == "false", f"{file.name}: {element.get(ANDROID + 'id')}"


def test_nothing_is_left_or_right():
    """Start and end turn around where text runs from right to left."""
    sided = re.compile(r"android:\w*(Left|Right)=|gravity=\"[^\"]*\b(left|right)\b")
    assert [file.name for file in XML if sided.search(file.read_text())] == []


def test_manifest():
    manifest = parsed(APP / "AndroidManifest.xml")
    permissions = [element.get(ANDROID + "name") for element in manifest.iter() if element.tag.startswith("uses-permission")]
    assert permissions == ["android.permission.INTERNET"]
    application = manifest.find("application")
    exported = Counter(element.get(ANDROID + "exported") for element in application)
    assert exported == {"true": 1, "false": 1}  # the activity; the provider
    for element in [application, *application]:
        assert (CODE / "dev/t5g2/demo" / f"{element.get(ANDROID + 'name')[1:]}.kt").exists()


def test_the_internet_is_reached_by_https_only():
    config = parsed(RESOURCES / "xml/network_security.xml")
    assert config.find("base-config").get("cleartextTrafficPermitted") == "false"
    assert {domain.text for domain in config.iter("domain")} == {"localhost", "127.0.0.1", "::1", "10.0.2.2"}


def imports(folder: Path) -> set[str]:
    return {name for file in folder.rglob("*.kt") for name in re.findall(r"^import ([\w.]+)", file.read_text(), re.MULTILINE)}


@pytest.mark.parametrize("module", ["engine", "core"])
def test_only_the_app_knows_android(module):
    assert {name for name in imports(tools.DEMO / module / "src/main") if re.match(r"androidx?\.", name)} == set()


def test_the_app_has_no_libraries():
    ours = r"(android|java|kotlin|dev\.t5g2\.demo\.core)\."
    assert {name for name in imports(CODE) if not re.match(ours, name)} == set()


def test_gradle_knows_every_version_by_name():
    catalogue = (tools.DEMO / "gradle/libs.versions.toml").read_text()
    named = {name.replace("-", ".") for name in re.findall(r"^([\w-]+) = ", catalogue, re.MULTILINE)}
    for file in tools.DEMO.rglob("*.gradle.kts"):
        for name in re.findall(r"\blibs\.(?:versions\.|plugins\.)?([a-z.]+?)(?:\.get\b|\))", file.read_text()):
            assert name in named, f"{file}: libs.{name}"


def test_gradle_wrapper():
    """The jar that runs on everybody's machine is one that gradle.org published, and what it downloads is pinned."""
    wrapper = tools.DEMO / "gradle/wrapper"
    of_gradle_9_4_1 = "55243ef57851f12b070ad14f7f5bb8302daceeebc5bce5ece5fa6edb23e1145c"
    assert hashlib.sha256((wrapper / "gradle-wrapper.jar").read_bytes()).hexdigest() == of_gradle_9_4_1
    assert re.search(r"^distributionSha256Sum=[0-9a-f]{64}$", (wrapper / "gradle-wrapper.properties").read_text(), re.MULTILINE)
    assert os.access(tools.DEMO / "gradlew", os.X_OK)


# --- with Android's tools ---


def newest(folder: Path, pattern: str) -> Path | None:
    """The folder of the newest version that an SDK has."""
    numbered = sorted(folder.glob(pattern), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])
    return numbered[-1] if numbered else None


@cache
def sdk(folder: str, pattern: str) -> Path | None:
    """None: no SDK is wanted."""
    home = os.environ.get("ANDROID_HOME")
    found = newest(Path(home, folder), pattern) if home else None
    if home and not found:
        pytest.skip(f"no {folder} in ANDROID_HOME, {home}")
    return found


def platform() -> Path | None:
    found = sdk("platforms", "android-*")
    return found and found / "android.jar"


@cache
def tool(name: str, package: str) -> Path:
    build_tools = sdk("build-tools", "*")
    found = build_tools / name if build_tools else shutil.which(name)
    if not found:
        pytest.skip(f"no {name}; set ANDROID_HOME, or on Debian: apt install {package}")
    return Path(found)


def run(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_jar(jar: Path, *arguments: object) -> str:
    return run(tools.java(), *tools.QUICK_JVM, "-cp", jar, *arguments)


@pytest.fixture(scope="module")
def linker():
    """aapt2, and the framework's resources."""
    framework = platform() or Path("/usr/share/android-framework-res/framework-res.apk")
    if not framework.exists():
        pytest.skip("no framework; set ANDROID_HOME, or on Debian: apt install android-framework-res")
    return tool("aapt2", "aapt"), framework


@cache
def version(name: str) -> str:
    catalogue = (tools.DEMO / "gradle/libs.versions.toml").read_text()
    return re.search(rf'^{name} = "([^"]*)"', catalogue, re.MULTILINE)[1]


@pytest.fixture(scope="module")
def linked(linker, tmp_path_factory):
    """The manifest and the resources as an APK, and R.java."""
    aapt2, framework = linker
    folder = tmp_path_factory.mktemp("linked")
    manifest = (APP / "AndroidManifest.xml").read_text().replace("${applicationId}", "dev.t5g2.demo")
    manifest = manifest.replace("<manifest ", '<manifest package="dev.t5g2.demo" ', 1)
    (folder / "AndroidManifest.xml").write_text(manifest)
    run(aapt2, "compile", "--dir", RESOURCES, "-o", folder / "resources.zip")
    run(aapt2, "link", "-I", framework, "--manifest", folder / "AndroidManifest.xml", "--java", folder / "java",
        "--min-sdk-version", version("min-sdk"), "--target-sdk-version", version("target-sdk"), "--version-name", "0",
        "--version-code", "1", "-o", folder / "linked.apk", folder / "resources.zip")  # fmt: skip
    return folder


def check_badging(aapt2: Path, apk: Path) -> None:
    badging = run(aapt2, "dump", "badging", apk)
    assert re.findall(r"uses-permission: name='([^']*)'", badging) == ["android.permission.INTERNET"]
    assert f"sdkVersion:'{version('min-sdk')}'" in badging
    assert f"targetSdkVersion:'{version('target-sdk')}'" in badging
    assert "launchable-activity: name='dev.t5g2.demo.MainActivity'" in badging


def test_resources_and_manifest_link(linker, linked):
    check_badging(linker[0], linked / "linked.apk")


# What the app calls of Androids newer than 10, behind questions for the version, as developer.android.com/reference has it.
NEWER = """
package android.content {
  public class Intent {
    method @Nullable public <T> T getParcelableExtra(@Nullable String, @NonNull Class<T>);
package android.os {
  public static class Build.VERSION_CODES {
    field public static final int TIRAMISU = 33;
    field public static final int VANILLA_ICE_CREAM = 35;
package android.provider {
  public final class MediaStore {
    field public static final String ACTION_PICK_IMAGES = "android.provider.action.PICK_IMAGES";
package android.view {
  public final class WindowInsets {
    field @NonNull public static final android.view.WindowInsets CONSUMED;
    method @NonNull public android.graphics.Insets getInsets(int);
  public static final class WindowInsets.Type {
    method public static int displayCutout();
    method public static int ime();
    method public static int systemBars();
"""


@pytest.fixture(scope="module")
def android(tmp_path_factory):
    """Android's class library."""
    if platform():
        return platform()
    jar = tmp_path_factory.mktemp("android") / "android.jar"
    android_api.write_jar([tools.android_10_signatures(), NEWER], jar)
    return jar


@pytest.fixture(scope="module")
def classes(android, linked, tmp_path_factory):
    """The folders with all classes."""
    folder = tmp_path_factory.mktemp("classes")
    javac = tools.java().with_name("javac")
    run(javac, "--release", "8", "-Xlint:-options", "-d", folder / "r", *(linked / "java").rglob("R.java"))
    modules = [tools.DEMO / module / "src/main/kotlin" for module in ("engine", "core")]
    if platform():  # as Gradle does it; an SDK's java.* says more of nulls, and may deprecate what the app calls
        libraries = tools.kotlin_compile(modules, tools.classpath_of("org.json"), folder / "libraries")
    else:  # a JDK's class library has more than Android's
        libraries = tools.kotlin_compile(modules, [], folder / "libraries", class_library=android)
    app = tools.kotlin_compile([CODE], [folder / "r", libraries], folder / "app", class_library=android,
                               warnings_are_errors=not platform())  # fmt: skip
    return [folder / "r", libraries, app]


def test_everything_compiles_against_android(classes):
    assert (classes[-1] / "dev/t5g2/demo/MainActivity.class").exists()


@pytest.fixture(scope="module")
def dex(android, classes, tmp_path_factory):
    """classes.dex: the classes and Kotlin's library."""
    folder = tmp_path_factory.mktemp("dex")
    with zipfile.ZipFile(folder / "classes.jar", "w") as jar:
        for compiled in classes:
            for file in compiled.rglob("*.class"):
                jar.write(file, file.relative_to(compiled))
        for library in map(zipfile.ZipFile, tools.kotlin_stdlib()):
            for name in library.namelist():
                if name.startswith("kotlin/") and name.endswith(".class"):
                    jar.writestr(name, library.read(name))
        given = len(jar.namelist())
    build_tools, oldest = sdk("build-tools", "*"), version("min-sdk")
    if build_tools:
        d8 = [build_tools / "lib/d8.jar", "com.android.tools.r8.D8", "--min-api", oldest, "--lib", android]
        run_jar(*d8, "--output", folder, folder / "classes.jar")
    else:
        dx = [tools.packed_jar("com.android.dx-10.0.0.jar"), "com.android.dx.command.Main", "--dex"]
        run_jar(*dx, f"--min-sdk-version={oldest}", f"--output={folder}/classes.dex", folder / "classes.jar")
    dex = folder / "classes.dex"
    assert int.from_bytes(dex.read_bytes()[0x60:0x64], "little") >= given  # class_defs_size; D8 adds classes for lambdas
    return dex


def test_apk(linker, linked, dex, tmp_path):
    apk, aligned, key = tmp_path / "app.apk", tmp_path / "aligned.apk", tmp_path / "key"
    shutil.copy(linked / "linked.apk", apk)
    with zipfile.ZipFile(apk, "a") as archive:
        archive.write(dex, "classes.dex")
    zipalign = tool("zipalign", "zipalign")
    run(zipalign, "-p", "4", apk, aligned)
    run(tools.java().with_name("keytool"), "-genkeypair", "-keystore", key, "-storepass", "secret", "-dname", "CN=test",
        "-keyalg", "RSA", "-alias", "test")  # fmt: skip
    build_tools = sdk("build-tools", "*")
    signer = build_tools / "lib/apksigner.jar" if build_tools else tools.packed_jar("apksigner-31.0.2.jar")
    run_jar(signer, "com.android.apksigner.ApkSignerTool", "sign", "--ks", key, "--ks-pass", "pass:secret", aligned)
    run_jar(signer, "com.android.apksigner.ApkSignerTool", "verify", "--min-sdk-version", version("min-sdk"), aligned)
    run(zipalign, "-c", "-p", "4", aligned)  # signing has kept it so
    check_badging(linker[0], aligned)
