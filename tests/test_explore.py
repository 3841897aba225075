"""The page of a generator, in a real browser with the network cut."""

import base64
import json
import re
import shutil
import zlib

import numpy as np
import pytest
import test_priors
import test_program
from PIL import Image
from test_export import new_run
from test_generation import _flags, main  # noqa: F401 - a fixture
from training.run_folder import RunFolder

import generation
from generation import explore, program
from models import priors
from support.errors import UserError

pytestmark = pytest.mark.slow  # a browser takes seconds a test

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
RECIPES = ["minimal", "stable_cnn", "dcgan", "pretrained_cnn"]
BOUNDS = {"minimal": 2e6, "stable_cnn": 3e6}
# Half a float16 step of all weights on the way, beside the 1/255 that nobody can see.
NEAR = 1 / 255 + 2e-3
CLASSES = ["zero", "one", "two", "<b>three</b>", "four", None, "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("there is no chromium to open pages in")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Tab:
    """A page opened from a file without a network; closing it checks that nothing went wrong."""

    def __init__(self, browser, path, address="", **options):
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        self.context.set_offline(True)
        self.page, self.wrong = self.context.new_page(), []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.wrong.extend(_foreign(request.url)))
        self.page.goto(f"file://{path}{address}")
        until(self.page, "network.ready")

    def __enter__(self):
        return self.page

    def __exit__(self, *_):
        self.context.close()
        assert self.wrong == []


def until(page, condition):
    """Waits for it for 20 s; Playwright's own way of waiting takes an eval, which pages forbid."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise TimeoutError(condition)


def _foreign(url):
    return [] if url.startswith(("file:", "blob:", "data:")) else [url]


def images_of(page, z, labels=None):
    """-> float [n, 784] from the page's own function."""
    script = "([z, y]) => Promise.all(z.map((row, k) => explorer.generate(row, y?.[k])))"
    return np.array(page.evaluate(script, [np.asarray(z, float).tolist(), labels]))


def shown(page):
    """-> uint8 [28, 28], what the large picture shows when all is at rest."""
    until(page, "!network.now && !network.running && !settling")
    script = "[...element('picture').getContext('2d').getImageData(0, 0, 28, 28).data]"
    return np.array(page.evaluate(script), np.uint8).reshape(28, 28, 4)[..., 0]


def latents(page):
    return np.array(page.evaluate("[...state.z]"))


def spread_out(run):
    """Stretches G's kernels and averages, so that pictures of a short run have some contrast."""
    folder = RunFolder(run)
    step, state = folder.load_checkpoint(print)
    rng = np.random.default_rng(0)
    for name, value in state.items():
        if name.startswith("generator") and "kernel" in name:
            state[name] = 2 * value
        elif "moving" in name:
            state[name] = (value * rng.uniform(0.5, 2, value.shape)).astype(np.float32)
    folder.save_checkpoint(step, state)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return spread_out(new_run(tmp_path_factory.mktemp("runs") / "stable", "stable_cnn"))


@pytest.fixture(scope="module")
def path(run):
    main("--mode=explore", f"--run_dir={run}")
    return run / "explore.html"


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A page of a small conditional generator, and the images it should give."""

    def build(z, labels):
        both = test_program.tf.concat([z, labels], axis=1)
        kernel = test_program.constant(test_program.NLATENT + 10, 784)
        return test_program.tf.sigmoid(test_program.tf.matmul(both, kernel))

    graph = test_program.frozen(build, labels=True)
    compiled = program.compile_graph(graph)
    about = {
        "title": "</title><script>alert(1)</script>", "recipe": "</script><img src=x>",
        "facts": {"<i>name</i>": "</script><script>alert(2)</script>"},
        "scores": [], "notes": [], "film": None,
    }  # fmt: skip
    path = tmp_path_factory.mktemp("page") / "conditional.html"
    prior = priors.get("normal")
    path.write_bytes(explore.page(compiled, about, prior, test_program.NLATENT, CLASSES))
    return path, lambda **inputs: test_program.by_tensorflow(graph, **inputs)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_pictures_are_those_of_the_run(recipe, browser, tmp_path):
    folder = spread_out(new_run(tmp_path / "run", recipe))
    text, _ = main("--mode=explore", f"--run_dir={folder}", f"--out={tmp_path / 'it.html'}")
    assert text == f"Written: {tmp_path / 'it.html'}. Open it in a browser.\n"
    assert (tmp_path / "it.html").stat().st_size <= BOUNDS.get(recipe, 10e6)
    generator = generation.load(folder)
    # So many as pretrained_cnn's statistics are taken from, and the same.
    z = generator.latents(256, np.random.default_rng(0))
    expected = generator.generate(z)[:100].reshape(100, 784)
    with Tab(browser, tmp_path / "it.html") as page:
        assert page.evaluate("explorer.nlatent") == generator.recipe.nlatent
        assert page.evaluate("explorer.labels") == []
        images = images_of(page, z[:100])
    assert expected.std() > 0.02
    np.testing.assert_allclose(images, expected, atol=NEAR)


@pytest.mark.parametrize("name", test_program.GRAPHS)
def test_each_operation_does_in_the_browser_what_it_does_in_tensorflow(name, browser, tmp_path):
    def flat(z):
        y = test_program.GRAPHS[name](z)
        return test_program.tf.reshape(y, [-1, int(np.prod(y.shape.as_list()[1:]))])

    graph = test_program.frozen(flat)
    about = {"title": name, "recipe": name, "facts": {}, "scores": [], "notes": [], "film": None}
    page = explore.page(program.compile_graph(graph), about, FEW, test_program.NLATENT)
    (tmp_path / "it.html").write_bytes(page)
    z = test_program.latents()
    expected = test_program.by_tensorflow(graph, z=z)
    with Tab(browser, tmp_path / "it.html") as page:
        images = images_of(page, z)
    np.testing.assert_allclose(images, expected, rtol=5e-3, atol=5e-3)


class Few(priors.Normal):
    """A prior whose quantiles take no time."""

    def quantiles(self):
        return np.linspace(0, 1, 5), np.linspace(-2, 2, 5)


FEW = Few("normal", -2.0, 2.0)


def test_draws_follow_the_prior(browser, path):
    with Tab(browser, path) as page:
        script = "((random) => Array.from({length: 1000}, () => [...drawn(random)]))(uniform(7))"
        z = np.array(page.evaluate(script)).ravel()
    assert test_priors.kolmogorov(z, test_priors.CDFS["normal"]) < 1.95


def test_walks_are_those_of_the_prior(browser, path):
    prior = priors.get("normal")
    a, b = prior.sample(np.random.default_rng(0), [2, 16]).astype(float)
    with Tab(browser, path) as page:
        script = "([a, b]) => [0, .2, .5, 1].map((t) => between(a, b, t))"
        walked = page.evaluate(script, [a.tolist(), b.tolist()])
    np.testing.assert_allclose(walked, prior.interpolate(a, b, [0, 0.2, 0.5, 1]), atol=1e-5)


def test_dragging_moves_the_picture_and_the_address(browser, path):
    with Tab(browser, path, "#plane=5") as page:
        first, at_a = shown(page), latents(page)
        plane = page.locator("#plane").bounding_box()
        page.mouse.move(plane["x"] + 0.5 * plane["width"], plane["y"] + 0.13 * plane["height"])
        page.mouse.down()
        page.mouse.move(
            plane["x"] + 0.12 * plane["width"], plane["y"] + 0.84 * plane["height"], steps=5
        )
        page.mouse.up()
        second = shown(page)
        assert (first != second).any()
        draws = np.array(page.evaluate("state.plane.draws.map((z) => [...z])"))
        np.testing.assert_allclose(at_a, draws[0], atol=1e-5)
        np.testing.assert_allclose(latents(page), draws[1], atol=0.05)
        # In the middle of three independent normal draws is one more: as long as they are.
        page.evaluate("moveTo(0.5, (0.13 + 2 * 0.84) / 3)")
        np.testing.assert_allclose(latents(page), draws.sum(axis=0) / np.sqrt(3), atol=1e-3)
        expected = images_of(page, [latents(page)])[0].reshape(28, 28)
        np.testing.assert_allclose(shown(page), 255 * expected, atol=0.51)


def test_a_link_shows_the_same_picture(browser, path):
    with Tab(browser, path) as page:
        page.evaluate("moveTo(0.31, 0.72)")
        on_the_plane = shown(page), page.evaluate("location.hash")
        page.locator("#slider-0").fill("1.4")
        page.keyboard.press("c")
        beside_it = shown(page), page.evaluate("location.hash")
        assert page.locator("#marker").is_hidden()
        assert (on_the_plane[0] != beside_it[0]).any()
    assert "at=0.31,0.72" in on_the_plane[1] and "z=" in beside_it[1]
    for picture, address in (on_the_plane, beside_it):
        with Tab(browser, path, address) as page:
            np.testing.assert_array_equal(shown(page), picture)
            assert page.evaluate("location.hash") == address


@pytest.mark.parametrize(
    "address", ["#z=AAAA", "#plane=x&at=1", "#at=NaN,1&label=7", "#%", "#z=%00"]
)
def test_an_address_of_nothing_is_a_new_draw(browser, path, address):
    with Tab(browser, path, address) as page:
        assert shown(page).std() > 0 and np.isfinite(latents(page)).all()


def test_keys_and_buttons(browser, path):
    with Tab(browser, path, "#plane=5") as page:
        before = latents(page)
        assert page.locator("dt.of-labels").is_hidden()
        page.keyboard.press("n")
        assert (latents(page) != before).all()
        page.locator("#plane").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Shift+ArrowLeft")
        assert page.evaluate("state.at") == [0.4, 0.15]
        assert page.locator("#status").inner_text() == "40 % right, 85 % up."
        page.keyboard.press("p")
        page.wait_for_timeout(400)
        moved = latents(page)
        page.wait_for_timeout(200)
        assert page.locator("#play").inner_text() == "Pause" and (latents(page) != moved).any()
        page.locator("#play").click()
        still = latents(page)
        page.wait_for_timeout(200)
        np.testing.assert_array_equal(latents(page), still)
        page.keyboard.press("w")
        until(page, "!motion")
        assert page.evaluate("state.at") == [0.12, 0.84]
        page.locator("#neighbours button").nth(3).click()
        shown(page)
        distance = np.linalg.norm(
            latents(page) - np.array(page.evaluate("[...state.plane.draws[1]]"))
        )
        assert 0.1 < distance < 4


def test_a_saved_picture_is_the_one_that_is_shown(browser, path, tmp_path):
    with Tab(browser, path, accept_downloads=True) as page:
        picture = shown(page)
        with page.expect_download() as download:
            page.locator("#save").click()
        download.value.save_as(tmp_path / "digit.png")
        assert download.value.suggested_filename == "stable_cnn.png"
    saved = np.asarray(Image.open(tmp_path / "digit.png").convert("L"))
    np.testing.assert_array_equal(saved[10::20, 10::20], picture)


def test_directions_that_change_more_come_first(path):
    about = json.loads(re.search(r'id="about-data">(.*?)</script>', path.read_text())[1])
    shares = [slider["share"] for slider in about["sliders"]]
    directions = np.array([slider["direction"] for slider in about["sliders"]])
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(directions @ directions.T, np.eye(16), atol=1e-4)


def test_directions_of_a_linear_generator_are_its_singular_vectors():
    matrix = np.random.default_rng(0).standard_normal((6, 784)).astype(np.float32)
    compiled = program.Program([("MatMul", "t0", "z", "c0")], {"c0": matrix})
    left, sizes, _ = np.linalg.svd(matrix)
    found = explore.sliders(compiled, FEW, 6)
    for slider, direction, size in zip(found, left.T, sizes, strict=True):
        assert abs(np.dot(slider["direction"], direction)) == pytest.approx(1, abs=1e-3)
        assert slider["share"] == pytest.approx(size**2 / (sizes**2).sum(), rel=1e-3)
    along_axes = explore.sliders(compiled, priors.get("uniform"), 6)
    norms = [np.linalg.norm(matrix[np.argmax(slider["direction"])]) for slider in along_axes]
    assert norms == sorted(norms, reverse=True)


def test_labels_have_buttons_and_keys(browser, conditional):
    path, by_tensorflow = conditional
    z = test_program.latents(1)
    with Tab(browser, path) as page:
        assert page.evaluate("explorer.labels") == CLASSES
        for label in (0, 7):
            expected = by_tensorflow(z=z, labels=np.eye(10, dtype=np.float32)[[label]])
            np.testing.assert_allclose(images_of(page, z, [label]), expected, atol=NEAR)
        buttons = page.get_by_role("radio")
        assert buttons.all_inner_texts() == [name for name in CLASSES if name]
        assert page.locator("dt.of-labels").is_visible()
        first = shown(page)
        buttons.nth(3).click()
        assert (shown(page) != first).any() and "label=3" in page.evaluate("location.hash")
        page.keyboard.press("ArrowRight")
        assert page.get_by_role("radio", checked=True).inner_text() == "four"
        page.keyboard.press("ArrowRight")
        assert page.get_by_role("radio", checked=True).inner_text() == "six"
        page.keyboard.press("5")
        assert page.get_by_role("radio", checked=True).inner_text() == "six"
        page.keyboard.press("0")
        np.testing.assert_array_equal(shown(page), first)
        for wrong in ("[1], 0", "z", "z, 5", "z, 10", "[1,2,3,4,5,NaN], 1"):
            arguments = wrong.replace("z", "[1,2,3,4,5,6]")
            script = f"explorer.generate({arguments}).then(() => '', (error) => error.name)"
            assert page.evaluate(script) == "TypeError"


def test_names_stay_names(browser, conditional):
    with Tab(browser, conditional[0]) as page:
        assert page.title() == "</title><script>alert(1)</script>"
        assert page.locator("#facts dt").inner_text() == "<i>name</i>"
        assert page.locator("img, b, i").count() == 0
        assert page.locator("script:not([type])").count() == 1


def test_the_policy_lets_nothing_else_run(browser, path):
    tab = Tab(browser, path)
    with tab as page:
        script = """() => {
          const script = document.createElement('script');
          script.textContent = 'window.ran = true';
          document.body.append(script);
          return window.ran ?? false;
        }"""
        assert page.evaluate(script) is False
        fetched = "fetch('data:text/plain,x').then(() => 'came', () => 'refused')"
        assert page.evaluate(fetched) == "refused"
        page.wait_for_timeout(100)
        assert len(tab.wrong) >= 2 and all("Content Security Policy" in line for line in tab.wrong)
        tab.wrong.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser, path, scheme):
    small = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with Tab(browser, path, color_scheme=scheme, **small) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        plane = page.locator("#plane").bounding_box()
        assert page.locator("#picture").is_visible() and plane["y"] + plane["height"] <= 740
        first = shown(page)
        page.locator("#plane").tap(position={"x": 60, "y": 250})
        assert (shown(page) != first).any()
        for button in page.locator("#show button").all():
            if button.is_visible():
                assert button.bounding_box()["height"] >= 44
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        level = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
        assert level > 200 if scheme == "light" else level < 60


def test_two_latents_are_the_plane_itself_and_one_a_line(browser, tmp_path):
    for nlatent in (1, 2):
        folder = new_run(tmp_path / f"run{nlatent}", "minimal", f"--nlatent={nlatent}")
        explore.explore(folder, tmp_path / "it.html")
        with Tab(browser, tmp_path / "it.html", "#plane=5") as page:
            page.evaluate("moveTo(1, 0)")
            assert latents(page).tolist() == [1, 1][:nlatent]
            page.locator("#slider-0").fill("-0.5")
            assert page.locator("#marker").is_visible()
            picture, address = shown(page), page.evaluate("location.hash")
        with Tab(browser, tmp_path / "it.html", address) as page:
            np.testing.assert_array_equal(shown(page), picture)


def test_the_run_its_scores_and_its_film(browser, run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    reference = {"real": dict.fromkeys(explore._SCORES, 2.0)}
    scores = dict.fromkeys(explore._SCORES, 3.25)
    of_these = {"step": 2, "raw": False, "checkpoint_sha256": generation.load(copy).digest}
    content = {**of_these, **scores, "reference_scores": reference}
    (copy / "metrics.json").write_text(json.dumps(content))
    (copy / "progress").mkdir()
    for step in (1, 2):
        sheet = np.full([224, 224], 100 * step, np.uint8)
        Image.fromarray(sheet).save(copy / "progress" / f"step-{step:09d}.png")
    explore.explore(copy, tmp_path / "it.html")
    with Tab(browser, tmp_path / "it.html") as page:
        assert page.locator("#scores thead th").all_inner_texts() == ["", "this run", "real"]
        assert page.locator("#scores tbody td").all_inner_texts()[:2] == ["3.25", "2"]
        assert page.locator("#film-step").inner_text() == "step 2"
        page.locator("#film-at").fill("0")
        assert page.locator("#film-step").inner_text() == "step 1"
        script = "element('frames').getContext('2d').getImageData(9, 9, 1, 1).data[0]"
        assert page.evaluate(script) == 100
    (copy / "progress" / "step-000000001.png").write_bytes(b"no picture")
    assert explore.film(copy / "progress") is None


@pytest.mark.parametrize(
    "text", ['{"step": 2}', "[]", "{", '{"step": "x"}', "[" * 100_000, '{"step": 2, "a": NaN}']
)
def test_scores_that_cannot_be_read_are_a_note(run, text, tmp_path):
    (tmp_path / "metrics.json").write_text(text)
    rows, note = explore._scores(tmp_path / "metrics.json", generation.load(run))
    assert rows == [] and note == "metrics.json could not be read."


@pytest.mark.parametrize("other", [{"step": 1}, {"raw": True}, {"checkpoint_sha256": "0"}])
def test_scores_of_other_weights_are_a_note(run, other, tmp_path):
    generator = generation.load(run)
    these = {"step": 2, "raw": False, "checkpoint_sha256": generator.digest}
    (tmp_path / "metrics.json").write_text(json.dumps({**these, **other}))
    assert explore._scores(tmp_path / "metrics.json", generator) == (
        [], "There are scores of other weights only."
    )  # fmt: skip


def test_weights_are_float16_of_any_size():
    values = [np.array([3e5, -1e-3, 0], np.float32), np.full([2, 2], 1e-9, np.float32)]
    described, packed = explore._packed({"a": values[0], "b": values[1], "c": np.array([-1, 3])})
    low, high = np.split(np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8), 2)
    halves = (low + 256 * high.astype(np.uint16)).astype(np.uint16).view(np.float16)
    for name, wanted in zip("ab", values, strict=True):
        part = halves[described[name]["start"] :][: wanted.size].astype(np.float64)
        found = part.reshape(wanted.shape) * 2.0 ** described[name]["power"]
        np.testing.assert_allclose(found, wanted, rtol=2**-11, atol=np.abs(wanted).max() * 2**-25)
    assert described["c"] == {"shape": [2], "integers": [-1, 3]}


def test_what_cannot_be_a_page_is_one_line(run, tmp_path, monkeypatch):
    _, err = main("--mode=explore", f"--run_dir={run}", "--out=page.pdf", ok=False)
    assert err == "main.py: --out=page.pdf: wanted a name that ends in .html\n"
    monkeypatch.setattr(explore, "MOST_BYTES", 100_000)
    with pytest.raises(UserError, match=r"would have 1\.\d MB, wanted at most 0"):
        explore.explore(run, tmp_path / "it.html")
    assert not list(tmp_path.iterdir())
