"""Names of ring systems in captions and the pattern of each; the continuation of `claim_lexicon`."""

from __future__ import annotations

from tasks.metrics.claim_lexicon import STEROID, Row

_PREFIX = (
    r"(?:(?:[\d',]+-)|mono|di|tri|tetra|penta|hexa|amino|hydroxy|methoxy|methyl|chloro|bromo|fluoro|iodo|nitro|cyano|"
    r"\(trifluoromethyl\)|alkyl|phenyl|acyl|bi|n-|aryl)*"
)


def _skeleton(smiles: str) -> str:
    """The pattern of a ring system whatever its bonds: ChEBI's plural classes hold hydrogenated members too."""
    numbers = {"C": "6", "N": "7", "O": "8", "S": "16"}
    marks = (f"~[#{numbers[c]}]" if c in numbers else f"~{c}" if c.isdigit() else c for c in smiles)
    return "".join(marks).removeprefix("~")


# fmt: off
_RINGS = {
    "benzene": "c1ccccc1", "toluene": "[#6]c1ccccc1", "biphenyl": "c1ccccc1-c1ccccc1", "styrene": "c1ccccc1C=C",
    "naphthalene": "c1ccc2ccccc2c1", "anthracene": _skeleton("C1CCC2CC3CCCCC3CC2C1"), "stilbene": "c1ccccc1C=Cc1ccccc1",
    "pyridine": _skeleton("N1CCCCC1"), "pyrimidine": "n1cnccc1", "pyrazine": "n1ccncc1", "pyridazine": "n1ncccc1",
    "1,3,5-triazine": "n1cncnc1", "1,2,4-triazine": "n1nccnc1", "indole": _skeleton("C1CNC2CCCCC12"),
    "imidazole": "n1cncc1",
     "pyrazole": _skeleton("N1NCCC1"), "pyrrole": _skeleton("N1CCCC1"), "triazole": "[nr5]1[n,c][n,c][n,c][n,c]1",
    "tetrazole": "n1nnnc1", "furan": _skeleton("O1CCCC1"), "thiophene": "s1cccc1", "1,3-thiazole": _skeleton("S1CNCC1"),
    "1,3-oxazole": _skeleton("O1CNCC1"), "isoxazole": "o1nccc1", "oxadiazole": "[o;r5]", "thiadiazole": "[s;r5]",
    "quinoline": _skeleton("N1CCCC2CCCCC12"), "isoquinoline": "[#7]1~[#6]~[#6]~c2ccccc2~[#6]~1",
     "quinazoline": "[#7]1~[#6]~[#7]~[#6]c2ccccc12",
    "quinoxaline": "n1ccnc2ccccc12", "benzimidazole": "[#7]1~[#6]~[#7]c2ccccc12",
     "indazole": "[#7]1~[#7]~[#6]c2ccccc12",
    "1-benzofuran": _skeleton("O1CCC2CCCCC12"), "benzofuran": _skeleton("O1CCC2CCCCC12") + "|"
     "" + _skeleton("O1CC2CCCCC2C1"),
    "1-benzothiophene": _skeleton("S1CCC2CCCCC12"), "benzothiazole": "[#16]1~[#6]~[#7]c2ccccc12",
     "1,3-benzoxazole": "o1cnc2ccccc12",
    "carbazole": _skeleton("C1CCC2C(C1)NC1CCCCC12"), "acridine": "c1ccc2nc3ccccc3cc2c1",
     "phenazine": _skeleton("C1CCC2NC3CCCCC3NC2C1"),
    "phenothiazine": "c1ccc2c(c1)[#7]c1ccccc1S2", "purine": "[#6]1~[#7]~[#6]~[#6]2~[#7]~[#6]~[#7]~[#6]~2~[#7]~1",
    "beta-carboline": "[#6]1~[#6]~[#7]~[#6]~[#6]2~[#7]c3ccccc3~[#6]~1~2", "chromone": "O=c1ccoc2ccccc12",
    "coumarin": "O=[#6]1~[#6]~[#6]c2ccccc2[#8]1", "xanthone": _skeleton("C1C2CCCCC2OC2CCCCC12"),
    "chalcone": "c1ccccc1C(=O)C=Cc1ccccc1", "dihydrochalcone": "c1ccccc1C(=O)[CX4][CX4]c1ccccc1",
    "benzodioxole": "c1ccc2c(c1)OCO2", "dibenzofuran": "c1ccc2c(c1)oc1ccccc12",
     "pteridine": "[#6]1~[#7]~[#6]~[#6]2~[#7]~[#6]~[#6]~[#7]~[#6]~2~[#7]~1",
    "piperidine": "[#7]1[CX4,CX3][CX4,CX3][CX4,CX3][CX4,CX3][CX4,CX3]1", "piperazine": "[#7]1[#6][#6][#7][#6][#6]1",
    "pyrrolidine": "[#7]1[#6][#6][#6][#6]1", "morpholine": "[#7]1[#6][#6][#8][#6][#6]1",
     "azetidine": "[#7]1[#6][#6][#6]1",
    "aziridine": "[#7]1[#6][#6]1", "oxolane": "[#8]1[#6][#6][#6][#6]1", "oxane": "[#8]1[CX4][CX4][CX4][CX4][CX4]1",
    "cyclopropane": "C1CC1", "cyclobutane": "C1CCC1", "tetralin": "c1ccc2c(c1)[#6][#6][#6][#6]2",
     "adamantane": "C1C2CC3CC1CC(C2)C3",
    "isoindole": "[#6]1~[#7]~[#6]c2ccccc12",
     "pyridone": "O=[#6]1~[#6]~[#6]~[#6]~[#6]~[#7]1|O=[#6]1~[#6]~[#6]~[#7]~[#6]~[#6]1",
    "quinolone": "O=[#6]1~[#6]~[#6]~[#7]c2ccccc12|O=[#6]1~[#6]~[#6]c2ccccc2[#7]1",
     "2-pyranone": "O=[#6]1~[#8]~[#6]~[#6]~[#6]~[#6]~1",
     "pyrimidone": "O=[#6]1~[#7,#6]~[#6,#7]~[#7,#6]~[#6]~[#6,#7]1",
    "octahydronaphthalene": "[#6]1~[#6]~[#6]~[#6]2~[#6]~[#6]~[#6]~[#6]~[#6]~2~[#6]1",
     "2,5-diketopiperazine": "O=C1CNC(=O)CN1",
    "dioxolane": "[#8]1[#6][#8][#6][#6]1", "guaiacol": "Oc1c(O[CH3])cccc1",
     "phenanthrene": _skeleton("C1CCC2C(C1)CCC1CCCCC12"),
    "imidazolidine-2,4-dione": "O=C1CNC(=O)N1|O=C1[#6]NC(=O)N1", "thiazolidine": "[#16]1[#6][#7][#6][#6]1",
     "phenylurea": "c1ccccc1NC(=O)N",
}
_FLAVONOIDS = {
    "isoflavone": "O=c1c(-c2ccccc2)coc2ccccc12", "isoflavanone": "O=C1[CX4](-c2ccccc2)[CX4]Oc2ccccc12",
    "isoflavan": "[#6]1[#6](-c2ccccc2)[#6]Oc2ccccc12", "flavanone": "O=C1[CX4][CX4](-c2ccccc2)Oc2ccccc12",
    "flavonol": "O=c1c([OX2])c(-c2ccccc2)oc2ccccc12", "flavone": "O=c1cc(-c2ccccc2)oc2ccccc12",
    "flavan": "[CX4]1[CX4][CX4](-c2ccccc2)Oc2ccccc12",
}
_BENZENES = {
    "chloro": "Cl", "fluoro": "F", "bromo": "Br", "methoxy": "[OX2][CH3]", "(trifluoromethyl)": "C(F)(F)F",
     "hydroxy": "[OX2H1,OX1-]",
}
_MANY = r"(?P<n>mono|di|tri|tetra|penta|hexa|hepta)"

RINGS: tuple[Row, ...] = (
    *(
        ("ring system",
         name, rf"(?<![a-z\]])(?:{_PREFIX}|glycosyloxy|7-hydroxy|4'-hydroxy|4'-methoxy){name}s?(?: glycoside)?$",
         pattern)
        for name, pattern in _FLAVONOIDS.items()
    ),
    *(
        ("ring system", name, rf"(?<![a-z\]]){_PREFIX}{name}s?$", pattern)
        for name, pattern in sorted(_RINGS.items(), key=lambda item: -len(item[0]))
    ),
    ("ring system", "steroid", r"(?<!seco-)(?<![a-z])steroid(?: (?:ester|acid|aldehyde|sulfate|lactone))?$|"
     r"androstanoid$|(?:chol|ergo)estanoid$|ergostanoid$|3beta-sterol$", STEROID),
    ("aromaticity", "aromatic ring",
     r"(?<![a-z])(?:aromatic (?:compound|amide|amine|ether|ketone)|arenesulfonic acid|"
     r"biaryl|azaarene|arenecarbaldehyde)$", "a"),
    *(
        ("substituted ring", f"benzene with {{n}} {name}",
         rf"(?<![a-z]){_MANY}{name.replace('(', '[(]').replace(')', '[)]')}benzenes?$",
         f"c[$({pattern})]>={{n}} c1ccccc1")
        for name, pattern in _BENZENES.items()
    ),
    *(
        ("substituted ring", f"{{n}} {name} groups", rf"(?<![a-z]){_MANY}{name}(?:iso)?flav(?:one|anone|an|onol)s?$",
         f"[#6][$({pattern})]>={{n}}")
        for name, pattern in _BENZENES.items() if name in ("hydroxy", "methoxy")
    ),
)
# fmt: on
