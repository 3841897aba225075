"""The page of a generator, in a real browser without a network."""

import io
import json
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import test_priors
import test_program
from PIL import Image
from test_generation import main, train

import generation
from generation import explore, program
from models import priors
from training.run import RunFolder

pytestmark = pytest.mark.slow  # a browser takes seconds per test

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
MAX_BYTES = {"stable_cnn": 3e6, "dcgan": 10e6}
# Half a float16 step of all weights on the way, and 1/255 that nothing shows.
NEAR = 1 / 255 + 2e-3
CLASSES = ["zero", "one", "two", "<b>three</b>", "four", None, "six", "seven", "eight", "nine"]
ABOUT = {
    "title": "</title><script>alert(1)</script>", "recipe": "</script><img src=x>",
    "facts": {"<i>name</i>": "</script><script>alert(2)</script>"},
    "scores": [["", "<b>run</b>"], ["<i>score</i>", "1"]], "notes": ["<b>note</b>"], "film": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium to open pages in")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Tab:
    """A page opened without a network; closing it checks that nothing failed."""

    def __init__(self, browser, path, address="", **options):
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        self.context = browser.new_context(**options)
        self.context.set_offline(True)
        self.page, self.wrong = self.context.new_page(), []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self._check(request.url))
        self.page.goto(f"file://{path}{address}")
        until(self.page, "network.milliseconds !== null")

    def _check(self, url):
        if not url.startswith(("file:", "blob:", "data:")):
            self.wrong.append(url)

    def __enter__(self):
        return self.page

    def __exit__(self, *_):
        self.context.close()
        assert self.wrong == []


def until(page, condition):
    """Waits up to 20 s; Playwright's own waiting requires eval, which pages forbid."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise TimeoutError(condition)


def images_of(page, z, labels=None):
    """Returns float images [n, 784] from the page's own function."""
    script = "([z, y]) => Promise.all(z.map((row, k) => explorer.generate(row, y?.[k])))"
    return np.array(page.evaluate(script, [np.asarray(z, float).tolist(), labels]))


def shown(page):
    """Returns uint8 [28, 28], what the large image shows when all is at rest."""
    until(page, "!network.queues.shown.length && !network.running && !settling")
    script = "[...element('picture').getContext('2d').getImageData(0, 0, 28, 28).data]"
    return np.array(page.evaluate(script), np.uint8).reshape(28, 28, 4)[..., 0]


def latents(page):
    return np.array(page.evaluate("[...state.z]"))


def spread_out(run):
    """Stretches G's weights, so that images of a short run have some contrast."""
    folder = RunFolder(run)
    step, state = folder.load_checkpoint(print)
    for name in list(state):
        if name.startswith("outputs/"):
            del state[name]  # of the weights before
        elif name.startswith("generator") and ("kernel" in name or "moving" in name):
            state[name] = 2 * state[name]
    folder.save_checkpoint(step, state)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return spread_out(train(tmp_path_factory.mktemp("stable"), "--recipe=stable_cnn"))


@pytest.fixture(scope="module")
def path(run):
    main("--mode=explore", f"--run_dir={run}")
    return run / "explore.html"


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A page of a small conditional generator, and its frozen graph."""

    def build(z, labels):
        kernel = test_program.constant(test_program.NLATENT + 10, 784)
        return tf.sigmoid(tf.matmul(tf.concat([z, labels], axis=1), kernel))

    graph = test_program.frozen(build, labels=True)
    path = tmp_path_factory.mktemp("page") / "conditional.html"
    path.write_bytes(explore.page(graph, ABOUT, CLASSES))
    return path, graph


@pytest.mark.parametrize("recipe", MAX_BYTES)
def test_page_generates_the_images_of_the_run(recipe, browser, tmp_path):
    folder = spread_out(train(tmp_path, f"--recipe={recipe}"))
    main("--mode=explore", f"--run_dir={folder}", f"--out={tmp_path / 'it.html'}")
    assert (tmp_path / "it.html").stat().st_size <= MAX_BYTES[recipe]
    generator = generation.load(folder)
    z = generator.latents(20, np.random.default_rng(0))
    expected = generator.generate(z).reshape(20, 784)
    with Tab(browser, tmp_path / "it.html") as page:
        images = images_of(page, z)
    assert expected.std() > 0.02
    np.testing.assert_allclose(images, expected, atol=NEAR)


@pytest.mark.parametrize("first", range(4))
def test_operations_compute_what_they_compute_in_tensorflow(first, browser, tmp_path):
    """A quarter of the graphs together have few enough results for the pixels of one image."""

    def build(z):
        results = [graph(z) for graph in list(test_program.GRAPHS.values())[first::4]]
        flat = [tf.reshape(result, [tf.shape(z)[0], -1]) for result in results]
        return tf.concat(flat, axis=1)

    graph, z = test_program.frozen(build, prior="uniform"), test_program.latents()
    (tmp_path / "it.html").write_bytes(explore.page(graph, ABOUT))
    with Tab(browser, tmp_path / "it.html") as page:
        images = images_of(page, z)
    expected = test_program.by_tensorflow(graph, z=z)
    np.testing.assert_allclose(images, expected, rtol=5e-3, atol=5e-3)


def test_draws_and_walks_follow_the_prior(browser, path):
    prior = priors.PRIORS["normal"]
    a, b = prior.sample(np.random.default_rng(0), [2, 16]).astype(float)
    with Tab(browser, path) as page:
        script = "((random) => Array.from({length: 1000}, () => [...drawn(random)]))(uniform(7))"
        z = np.array(page.evaluate(script)).ravel()
        script = "([a, b]) => [0, .2, .5, 1].map((t) => between(a, b, t))"
        walked = page.evaluate(script, [a.tolist(), b.tolist()])
    assert test_priors.kolmogorov(z, test_priors.CDFS["normal"]) < 1.95
    np.testing.assert_allclose(walked, prior.interpolate(a, b, [0, 0.2, 0.5, 1]), atol=1e-5)


def test_dragging_moves_the_image(browser, path):
    with Tab(browser, path, "#plane=5") as page:
        first, at_a = shown(page), latents(page)
        left, top, width, height = page.locator("#plane").bounding_box().values()
        page.mouse.move(left + 0.5 * width, top + 0.13 * height)
        page.mouse.down()
        page.mouse.move(left + 0.12 * width, top + 0.84 * height, steps=5)
        page.mouse.up()
        assert (shown(page) != first).any()
        draws = np.array(page.evaluate("state.plane.draws.map((z) => [...z])"))
        np.testing.assert_allclose(at_a, draws[0], atol=1e-4)
        np.testing.assert_allclose(latents(page), draws[1], atol=0.05)
        # The middle of three independent normal draws is one more: as long as they are.
        page.evaluate("moveTo(0.5, (0.13 + 2 * 0.84) / 3)")
        np.testing.assert_allclose(latents(page), draws.sum(axis=0) / np.sqrt(3), atol=1e-3)
        expected = images_of(page, [latents(page)])[0].reshape(28, 28)
        np.testing.assert_allclose(shown(page), 255 * expected, atol=0.51)


@pytest.mark.parametrize("nlatent", [1, 2, 16])
def test_link_shows_the_same_image(browser, path, tmp_path, nlatent):
    """One or two latents are the plane itself."""
    if nlatent < 16:
        folder = spread_out(train(tmp_path, f"--nlatent={nlatent}"))
        path = tmp_path / "it.html"
        explore.explore(folder, path)
    with Tab(browser, path) as page:
        if nlatent < 16:
            page.evaluate("moveTo(1, 0)")
            assert latents(page).tolist() == [1, 1][:nlatent]
        page.evaluate("moveTo(0.31, 0.72)")
        on_the_plane = shown(page), page.evaluate("location.hash")
        page.locator("#slider-0").fill("-0.5")
        page.keyboard.press("c")
        other = shown(page), page.evaluate("location.hash")
        assert page.locator("#marker").is_hidden() == (nlatent == 16)
        assert (on_the_plane[0] != other[0]).any()
    assert ("at=0.31,0.72" in on_the_plane[1]) == (nlatent == 16) and "z=" in other[1]
    for image, address in (on_the_plane, other):
        with Tab(browser, path, address) as page:
            np.testing.assert_array_equal(shown(page), image)
            assert page.evaluate("location.hash") == address
    with Tab(browser, path) as page:
        for invalid in ("#z=1,2,3", "#plane=x&at=1", "#at=NaN,1&label=7", "#%", "#z=%00"):
            page.evaluate("(address) => { location.hash = address; readAddress(); }", invalid)
            assert shown(page).std() > 0 and np.isfinite(latents(page)).all()  # a new draw


def test_keys_and_buttons(browser, path, tmp_path):
    with Tab(browser, path, "#plane=5", accept_downloads=True) as page:
        image = shown(page)
        with page.expect_download() as download:
            page.locator("#save").click()
        assert download.value.suggested_filename == "stable_cnn.png"
        download.value.save_as(tmp_path / "digit.png")
        saved = np.asarray(Image.open(tmp_path / "digit.png").convert("L"))
        np.testing.assert_array_equal(saved[10::20, 10::20], image)
        before = latents(page)
        page.keyboard.press("n")
        assert (latents(page) != before).all()
        page.locator("#plane").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Shift+ArrowLeft")
        assert page.evaluate("state.at") == [0.4, 0.15]
        assert page.locator("#status").inner_text() == "40 % right, 85 % up."
        before = latents(page)
        page.keyboard.press("p")
        until(page, f"state.z[0] !== {before[0]}")
        assert page.locator("#play").inner_text() == "Stop"
        page.locator("#play").click()
        still = latents(page)
        page.wait_for_timeout(200)
        assert page.locator("#play").inner_text() == "Play" and (latents(page) == still).all()
        page.keyboard.press("w")
        until(page, "!motion")
        assert page.evaluate("state.at") == [0.12, 0.84]
        page.locator("#neighbours button").nth(3).click()
        draw = np.array(page.evaluate("[...state.plane.draws[1]]"))
        assert 0.1 < np.linalg.norm(latents(page) - draw) < 4
        slider = page.locator("#slider-0")
        slider.focus()
        page.keyboard.press("n")
        along = page.evaluate("along(about.sliders[0])")
        assert float(slider.input_value()) == pytest.approx(along, abs=0.04)
        page.keyboard.press("ArrowRight")
        assert 0.03 < page.evaluate("along(about.sliders[0])") - along < 0.11


def test_directions_of_a_linear_generator_are_its_singular_vectors():
    matrix = np.random.default_rng(0).standard_normal((6, 784)).astype(np.float32)
    compiled = program.Program([("MatMul", "t0", "z", "c0")], {"c0": matrix})
    left, sizes, _ = np.linalg.svd(matrix)
    found = explore.sliders(compiled, priors.PRIORS["normal"], 6)
    for slider, direction, size in zip(found, left.T, sizes, strict=True):
        assert abs(np.dot(slider["direction"], direction)) == pytest.approx(1, abs=1e-3)
        assert slider["share"] == pytest.approx(size**2 / (sizes**2).sum(), rel=1e-3)
        assert np.linalg.norm(slider["direction"]) == pytest.approx(1, abs=1e-4)
    axes = [s["direction"] for s in explore.sliders(compiled, priors.PRIORS["uniform"], 6)]
    assert np.argmax(axes, axis=1).tolist() == np.argsort(-np.linalg.norm(matrix, axis=1)).tolist()


def test_labels_have_buttons_and_keys(browser, conditional):
    path, graph = conditional
    z = test_program.latents(1)
    with Tab(browser, path) as page:
        assert page.evaluate("explorer.labels") == CLASSES
        for label in (0, 7):
            one_hot = np.eye(10, dtype=np.float32)[[label]]
            expected = test_program.by_tensorflow(graph, z=z, labels=one_hot)
            np.testing.assert_allclose(images_of(page, z, [label]), expected, atol=NEAR)
        assert page.locator("#classes label").all_inner_texts() == [n for n in CLASSES if n]
        assert page.locator("dt.of-labels").is_visible()
        assert page.title() == ABOUT["title"]  # names are shown as text
        assert page.locator("#facts dt").inner_text() == "<i>name</i>"
        assert page.locator("#scores th").all_inner_texts()[1:] == ["<b>run</b>", "<i>score</i>"]
        assert page.locator("img, b, i").count() == 0
        assert page.locator("script:not([type])").count() == 1
        first = shown(page)
        page.locator("#classes label").nth(3).click()
        assert (shown(page) != first).any() and "label=3" in page.evaluate("location.hash")
        for key, label in (("ArrowRight", 4), ("ArrowRight", 6), ("5", 6), ("0", 0)):
            page.keyboard.press(key)
            assert page.get_by_role("radio", checked=True).get_attribute("value") == str(label)
            assert page.evaluate("state.label") == label
        np.testing.assert_array_equal(shown(page), first)
        for wrong in ("[1], 0", "z", "z, 5", "z, 10", "[1,2,3,4,5,NaN], 1"):
            arguments = wrong.replace("z", "[1,2,3,4,5,6]")
            script = f"explorer.generate({arguments}).then(() => '', (error) => error.name)"
            assert page.evaluate(script) == "TypeError"


def test_scores_and_film_are_shown(browser, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    scores = dict.fromkeys(explore.SCORES, 3.25) | {"step": 4, "raw": False}
    scores["reference_scores"] = {"real": dict.fromkeys(explore.SCORES, 2.0)}
    scores["checkpoint_sha256"] = generation.load(run).digest
    (copy / "metrics.json").write_text(json.dumps(scores))
    shutil.rmtree(copy / "progress")
    (copy / "progress").mkdir()
    for step in (1, 2):
        sheet = np.full([224, 224], 100 * step, np.uint8)
        Image.fromarray(sheet).save(copy / "progress" / f"step-{step:09d}.png")
    explore.explore(copy, tmp_path / "it.html")
    with Tab(browser, tmp_path / "it.html") as page:
        assert page.locator("#scores tr").first.inner_text().split("\t")[1:] == ["this run", "real"]
        assert page.locator("#scores td").all_inner_texts()[:2] == ["3.25", "2"]
        assert page.locator("#film-step").inner_text() == "step 2"
        page.locator("#film-at").fill("0")
        assert page.locator("#film-step").inner_text() == "step 1"
        frames = Image.open(io.BytesIO(page.locator("#frames").screenshot())).convert("L")
        assert frames.getpixel((50, 50)) == 100
        page.locator("#film-play").click()
        until(page, "!motion")
        assert page.locator("#film-step").inner_text() == "step 2"
    (copy / "metrics.json").write_text(json.dumps(scores | {"step": 1}))  # of other weights
    explore.explore(copy, tmp_path / "it.html")
    note = '"scores":[],"notes":["These weights have no scores yet'
    assert note in (tmp_path / "it.html").read_text()
