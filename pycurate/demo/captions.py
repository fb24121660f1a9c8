"""Captions of the demo pool: eight languages, and what the web writes where a caption should be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOPICS = (
    "sun", "moon", "star", "mountain", "house", "tree", "flower", "boat", "fish", "balloon", "heart", "umbrella",
)  # fmt: skip
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words of one language, aligned with ``TOPICS`` and ``COLOURS``, and sentences to put them in.

    Templates name the topic {t}, the colour {c}, the place {p}, a year {y} and a number {n}.
    """

    share: float  # of the pool's sentences
    topics: tuple[str, ...]
    colours: tuple[str, ...]
    places: tuple[str, ...]
    templates: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split("/"))


LANGUAGES = {
    "en": Vocabulary(
        0.66,
        TOPICS,
        COLOURS,
        _words(
            "by the sea/in the garden/above the old town/near the river/on a quiet street/at sunset/in the morning/"
            "under a clear sky/behind the market/at the edge of the village/in winter/on the kitchen wall"
        ),
        (
            "This {c} {t} was photographed {p} in {y}",
            "Picture {n} of the {c} {t} {p}",
            "The {c} {t} {p}, number {n} of the collection",
            "Hand painted poster with one {c} {t} and a wooden frame, {n} dollars",
            "My favourite {t} {p}, all in {c}, seen {n} times",
            "{c} {t} wallpaper for the children's room, {n}0 x 1080 pixels",
            "How to draw the {t} {p} with {c} pencils - page {n}",
        ),
    ),
    "de": Vocabulary(
        0.08,
        _words("Sonne/Mond/Stern/Berg/Haus/Baum/Blume/Boot/Fisch/Ballon/Herz/Regenschirm"),
        _words("Rot/Orange/Gelb/Grün/Blau/Violett"),
        _words("am Strand/im Garten/über der Altstadt/bei Sonnenuntergang/auf dem Marktplatz/am Fluss/im Winter"),
        (
            "Motiv {t} in der Farbe {c}, {p} im Jahr {y} aufgenommen",
            "Handgemaltes Poster „{t}“ in {c} für das Wohnzimmer, {n} cm breit",
        ),
    ),
    "fr": Vocabulary(
        0.06,
        _words(
            "un soleil/une lune/une étoile/une montagne/une maison/un arbre/une fleur/un bateau/un poisson/un ballon/"
            "un cœur/un parapluie"
        ),
        _words("rouge/orange/jaune/verte/bleue/violette"),
        _words("au bord de la mer/dans le jardin/au coucher du soleil/près de la rivière/devant la mairie/en hiver"),
        (
            "Photo avec {t} de couleur {c}, prise {p} en {y}",
            "Affiche décorative avec {t} de couleur {c} pour le salon, largeur {n} cm",
        ),
    ),
    "es": Vocabulary(
        0.06,
        _words(
            "un sol/una luna/una estrella/una montaña/una casa/un árbol/una flor/un barco/un pez/un globo/un corazón/"
            "un paraguas"
        ),
        _words("rojo/naranja/amarillo/verde/azul/morado"),
        _words("junto al mar/en el jardín/sobre la ciudad antigua/cerca del río/en la plaza del pueblo/en invierno"),
        (
            "Fotografía de {t} de color {c} {p}, tomada en el año {y}",
            "Cuadro con {t} de color {c} para el salón de su casa, {n} euros",
        ),
    ),
    "ru": Vocabulary(
        0.05,
        _words("солнце/луна/звезда/гора/дом/дерево/цветок/лодка/рыба/воздушный шар/сердце/зонт"),
        _words("красный/оранжевый/жёлтый/зелёный/синий/фиолетовый"),
        _words("у моря/в саду/над старым городом/у реки/на закате/ранним утром/зимой"),
        (
            "Фотография: {t}, цвет {c}, снято {p} в {y} году",
            "Плакат с рисунком «{t}» для детской комнаты, {c} фон, {n} рублей",
        ),
    ),
    "zh": Vocabulary(
        0.04,
        _words("太阳/月亮/星星/高山/房子/大树/花朵/小船/鱼/气球/爱心/雨伞"),
        _words("红色/橙色/黄色/绿色/蓝色/紫色"),
        _words("在海边/在花园里/在老城区/在河边/在清晨/在冬天"),
        ("{p}拍摄的{c}{t}照片，摄于{y}年", "一幅画着{c}{t}的装饰画，适合客厅和卧室，编号{n}"),
    ),
    "ja": Vocabulary(
        0.03,
        _words("太陽/月/星/山/家/木/花/ボート/魚/風船/ハート/傘"),
        _words("赤い/オレンジ色の/黄色い/緑色の/青い/紫色の"),
        _words("海辺/庭/川のそば/静かな通り/夕暮れの町/冬の村"),
        ("{p}で撮影した{c}{t}の写真、{y}年の作品です", "{c}{t}が描かれたポスター、リビングにおすすめです（{n}円）"),
    ),
    "ar": Vocabulary(
        0.02,
        _words("شمس/قمر/نجمة/جبل/بيت/شجرة/زهرة/قارب/سمكة/بالون/قلب/مظلة"),
        _words("أحمر/برتقالي/أصفر/أخضر/أزرق/بنفسجي"),
        _words("على شاطئ البحر/في الحديقة/قرب النهر/عند الغروب/في الصباح الباكر"),
        ("صورة {t} بلون {c} {p} التقطت في عام {y}", "ملصق جميل عليه {t} بلون {c} لغرفة الجلوس بسعر {n}"),
    ),
}

REPEATED = (
    "Image not available",
    "Buy now with free shipping",
    "Product photo - click to enlarge",
    "Click here to see the full size picture",
    "Photo credit: the author",
    "Add to cart & save 20 %",
    "<b>New!</b> Summer collection is here",
    "Share this post with your friends",
)
SHORT = ("photo", "logo", "img", "Sale!", "icon", "home", "A & B", "map", "No. 5", "thumb nail")


def sentences(rng: np.random.Generator, topics: np.ndarray, colours: np.ndarray) -> tuple[list[str], np.ndarray]:
    """A sentence per row about its topic and colour.

    Parameters
    ----------
    topics, colours : ndarray
        (n,) integers into ``TOPICS`` and ``COLOURS``.

    Returns
    -------
    captions : list of str
    languages : ndarray
        (n,) ``U2``: the ISO 639-1 code of each caption.
    """
    codes = np.array(list(LANGUAGES))
    shares = np.array([vocabulary.share for vocabulary in LANGUAGES.values()])
    n = len(topics)
    languages = codes[rng.choice(len(codes), n, p=shares / shares.sum())]
    draws = rng.integers(0, 1 << 30, (n, 2)).tolist()
    years, numbers = rng.integers(1900, 2025, n).tolist(), rng.integers(12, 400, n).tolist()
    captions = []
    for code, topic, colour, (first, second), year, number in zip(
        languages.tolist(), topics.tolist(), colours.tolist(), draws, years, numbers, strict=True
    ):
        words = LANGUAGES[code]
        place = words.places[second % len(words.places)]
        template = words.templates[first % len(words.templates)]
        captions.append(template.format(t=words.topics[topic], c=words.colours[colour], p=place, y=year, n=number))
    return captions, languages


def junk(rng: np.random.Generator, n: int) -> list[str]:
    """File names where a caption should be."""
    forms = (
        "IMG_{}.jpg",
        "DSC{:05d}.JPG",
        "screenshot-{}.png",
        "image{}_large",
        "{}x600-crop.webp",
        "IMG_{} copy (2).jpg",
    )
    kinds, numbers = rng.integers(0, len(forms), n).tolist(), rng.integers(1000, 99999, n).tolist()
    return [forms[kind].format(number) for kind, number in zip(kinds, numbers, strict=True)]
