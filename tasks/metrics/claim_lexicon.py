"""The words of captions that RDKit can check, and what each of them says about a molecule.

Every row is `(type, claim, words, check)`. `words` is a regular expression that is searched, whatever the letter case,
in the head of a class statement ("an aromatic ether", "a member of pyridines"). Of the rows of one type the first that
is found counts, so that the narrower word stands above the wider one; of the types `EVERY`, all. `{n}` stands for the
number that the words state.

`check` is a conjunction (spaces) of alternatives (`|`) of terms: a SMARTS pattern that must match, `PATTERN>=3` or
`PATTERN==0` for how many times it does, or a property of the whole molecule: `charge`, `fused` (rings of the largest
system of rings that share atoms), `rings`, `sugars`, `fragments`, `carbons`, `ringsize` (of the largest ring), `chiral`
(1 where it differs from its mirror image), `R` and `S` (stereocentres of that label), each with `==`, `>=` or `<=`.

A word is here because ChEBI's and PubChem's own captions use it truly; `protocol_facts` says how often they do.
"""

from __future__ import annotations

import re

Row = tuple[str, str, str, str]
EVERY = ("element", "prefix")  # of these types every row that is found counts

NUMBERS = {
    "mono": 1, "di": 2, "bi": 2, "bis": 2, "tri": 3, "tris": 3, "tetra": 4, "penta": 5, "hexa": 6, "hepta": 7,
    "octa": 8, "nona": 9, "deca": 10, "poly": 2, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6,
    "seven": 7, "tetr": 4, "pent": 5, "hex": 6, "eight": 8, "a": 1, "an": 1, "": 1,
}  # fmt: skip
_N = r"(?P<n>di|tri|tetra|penta|hexa|hepta|octa|nona|deca)"
_OR_MONO = r"(?P<n>mono|di|tri|tetra|penta|hexa|)"

ACID = "[CX3](=O)[OX2H1]"
CARBOXYLATE = "[CX3](=O)[OX1-]"
ACID_OR_BASE = "[CX3](=O)[OX2H1,OX1-]"
ESTER = "[CX3;!$(C([#7])=O);!$(C(O[#6])(=O)O[#6])](=[OX1])[OX2][#6]"
AMIDE = "[CX3](=[OX1])[NX3]"
HYDROXY = "[OX2H1,OX1-][!$(C=O)]"
ALCOHOL = "[OX2H1][CX4]"
STEROID = "[#6]1~[#6]~[#6]~[#6]2~[#6](~[#6]~1)~[#6]~[#6]~[#6]1~[#6]~2~[#6]~[#6]~[#6]2~[#6]~[#6]~[#6]~[#6]~1~2"
PHOSPHATE = "[PX4](=O)([OX2,OX1-])([OX2,OX1-])[OX2,OX1-]"
GLUCOSIDE = "[#6][C@H]1O[C@@H]([OX2][#6])[C@H]([#8,#7])[C@@H]([#8])[C@@H]1[#8]"


def _acyl(carbons: int) -> str:
    """A straight saturated acyl group of so many carbons, in an ester or thioester."""
    return "[CX3](=O)([OX2,SX2][#6])" + "[CX4H2]" * (carbons - 2) + "[CX4H3]"


_ACYLS = {
    "butyrate": 4, "butanoate": 4, "hexanoate": 6, "octanoate": 8, "decanoate": 10, "dodecanoate": 12,
    "tetradecanoate": 14, "hexadecanoate": 16, "octadecanoate": 18,
}  # fmt: skip

# fmt: off
GROUPS: tuple[Row, ...] = (
    # Carboxylic and other acids
    ("acid", "sulfonic acid", r"sulfonic acids?$", "S(=O)(=O)[OX2H]"),
    ("acid", "phosphonic acid", r"phosphonic acids?$", "[#6]P(=O)([OX2H])"),
    ("acid", "boronic acid", r"boronic acids?$", "[#6]B([OX2H])[OX2H]"),
    ("acid", "hydroxamic acid", r"hydroxamic acid$", "[CX3](=O)[NX3][OX2H]"),
    ("acid", "{n} carboxylic acids", rf"(?<![a-z]){_N}carboxylic acid$", f"{ACID}>={{n}}"),
    ("acid", "alpha-amino acid", r"alpha-amino acid$", "[#7][CX4][CX3](=O)[OX2H1]"),
    ("acid", "benzoic acid", r"(?:(?<![a-z])|hydroxy|methoxy|amino|amido)benzoic acids?$", "c1ccccc1[CX3](=O)[OX2H1]"),
    ("acid", "cinnamic acid", r"(?<![a-z])cinnamic acids$", "c1ccccc1C=C[CX3](=O)[OX2H1]"),
    ("acid", "polyunsaturated fatty acid", r"polyunsaturated fatty acid$", f"{ACID} C=C>=2|C#C"),
    ("acid", "unsaturated fatty acid", r"(?<!poly)unsaturated fatty acid$", f"{ACID} C=C|C#C"),
    ("acid", "saturated fatty acid", r"(?<!un)saturated fatty acid$", f"{ACID} C=C==0 C#C==0"),
    ("acid", "fatty acid", r"fatty acid$", f"{ACID} [#6]-[CX4,CX3]~[CX4,CX3]-[#6]"),
    ("acid", "carboxylic acid", r"carboxylic acid$|(?<!nucleic )(?<!sialic )\bamino acid$|uronic acid$", ACID),
    ("acid", "carboxylic acid", r"N-acylglycine$|phenylacetic acids?$", ACID),
    # Their anions, by the group that bears the charge
    ("acid anion", "{n} carboxylates", rf"{_N}carboxylic acid {_N.replace('<n>', '<m>')}anion$",
     f"{CARBOXYLATE}>={{n}}"),
    ("acid anion", "sulfonate", r"organosulfonate oxoanion$", "S(=O)(=O)[OX1-]"),
    ("acid anion", "sulfate", r"organosulfate oxoanion$", "[#6]OS(=O)(=O)[OX1-]"),
    ("acid anion", "phosphate", r"organophosphate oxoanion$", "[#6]OP(=O)[OX1-]|[#6]OP([OX1-])"),
    ("acid anion", "phenolate", r"phenolate anion$", "c[OX1-]"),
    ("acid anion", "carboxylate", r"(?:carboxylic|fatty|carbohydrate|steroid|amino)[ -]acid (?:mono|di|tri)?anion$",
     CARBOXYLATE),
    ("acid anion", "carboxylate", r"N-acylglycinate$|fatty acid\(1-\)$", CARBOXYLATE),
    # Esters
    ("ester", "lactone of 4 ring atoms", r"beta-lactone$", "O=[#6]1[#6][#6][#8]1"),
    ("ester", "lactone of 5 ring atoms", r"gamma-lactone$|butan-4-olide$|butenolide$", "O=[#6]1[#8]~[#6]~[#6]~[#6]~1"),
    ("ester", "lactone of 6 ring atoms", r"delta-lactone$", "O=[#6]1[#8]~[#6]~[#6]~[#6]~[#6]~1"),
    ("ester", "macrocyclic lactone", r"macrocyclic lactone$|macrolide(?: antibiotic)?$", "O=[#6;R][#8;R] ringsize>=9"),
    ("ester", "lactone", r"lactones?$", "[#6R](=O)[#8R]"),
    ("ester", "methyl ester", r"(?<!di)methyl ester$", "[CX3](=O)[OX2][CH3]"),
    ("ester", "ethyl ester", r"(?<!m)ethyl ester$", "[CX3](=O)[OX2][CH2][CH3]"),
    ("ester", "acetate ester", r"(?<![a-z])acetate ester$", "[CH3][CX3](=O)[OX2][#6]"),
    ("ester", "formate ester", r"(?<![a-z])formate ester$", "[CX3H1](=O)[OX2][#6]"),
    ("ester", "benzoate ester", r"benzoate ester$", "c1ccccc1[CX3](=O)[OX2][#6]"),
    ("ester", "gallate ester", r"gallate ester$", "Oc1cc(cc(O)c1O)[CX3](=O)[OX2][#6]"),
    ("ester", "cinnamate ester", r"cinnamate ester$", "c1ccccc1C=C[CX3](=O)[OX2][#6]"),
    ("ester", "enoate ester", r"enoate ester$", "C=C[CX3](=O)[OX2][#6]"),
    *(("ester", f"{name} ester", rf"(?<![a-z]){name} ester$", _acyl(n)) for name, n in _ACYLS.items()),
    ("ester", "carbamate ester", r"carbamate ester$|(?<!thio)carbamates?$", "[#7][CX3](=O)[OX2][#6]"),
    ("ester", "carbonate ester", r"(?<![a-z])carbonate ester$", "[#6][OX2][CX3](=O)[OX2][#6]"),
    ("ester", "thioester", r"thioester$", "[CX3](=O)S"),
    ("ester", "{n} esters", r"(?<![a-z])(?P<n>di|tri|tetra)ester$", f"{ESTER}>={{n}}"),
    ("ester", "triglyceride", r"triglyceride$|triacyl-sn-glycerol$", "[CX3](=O)OCC(O[CX3]=O)CO[CX3]=O"),
    ("ester", "ester", r"(?:carboxylic|fatty acid|fatty|steroid|sterol|wax|amino acid|terpene|retinyl|"
     r"gibberellin) ester$", ESTER),
    # Amides and their kin
    ("amide", "lactam of 4 ring atoms", r"beta-lactam(?: antibiotic)?$|penicillin$|cephalosporin$", "O=C1[#6][#6]N1"),
    ("amide", "lactam of 5 ring atoms", r"gamma-lactam$|pyrrolidin-2-ones$", "O=[#6]1[#7]~[#6]~[#6]~[#6]~1"),
    ("amide", "lactam of 6 ring atoms", r"delta-lactam$", "O=[#6]1[#7]~[#6]~[#6]~[#6]~[#6]~1"),
    ("amide", "lactam", r"lactam$", "[#6R](=O)[#7R]"),
    ("amide", "sulfonamide", r"sulfonamide(?: antibiotic)?s?$|N-sulfonyl(?:urea|carboxamide|ureas)$",
     "[#6,#7]S(=O)(=O)[#7]"),
    ("amide", "sulfamide", r"sulfamides$", "[#7]S(=O)(=O)[#7]"),
    ("amide", "thiourea", r"thioureas$", "[#7]C(=S)[#7]"),
    ("amide", "urea", r"ureas$|N-acylurea$", "[#7]C(=O)[#7]"),
    ("amide", "guanidine", r"guanidines$", "[#7]C(~[#7])~[#7]"),
    ("amide", "amidine", r"amidines?$", "[#7]C=[#7]"),
    ("amide", "imide", r"dicarboximide$|phthalimides$|(?<![a-z])imide$", "O=C[#7]C=O"),
    ("amide", "acetamide", r"(?<![a-z])acetamides?$", "[#7]C(=O)[CX4]"),
    ("amide", "formamide", r"(?<![a-z])formamides?$", "[#7][CX3H1]=O"),
    ("amide", "benzamide", r"(?<![a-z])benzamides?$", "c1ccccc1C(=O)[#7]"),
    ("amide", "anilide", r"anilide(?: fungicide)?$", "c1ccccc1[NX3]C=O"),
    ("amide", "enamide", r"(?<![a-z])enamide$", "C=C[CX3](=O)[NX3]"),
    ("amide", "primary amide", r"primary (?:carboxamide|fatty amide)$", "[CX3](=O)[NX3H2]"),
    ("amide", "secondary amide", r"secondary carboxamide$", "[CX3](=O)[NX3H1][#6]"),
    ("amide", "tertiary amide", r"tertiary carboxamide$", "[CX3](=O)[NX3H0]([#6])[#6]"),
    ("amide", "amide", r"(?:acid|aromatic|fatty|steroid|alkaloid) (?:mono|di)?amide$|"
     r"(?<!\S)(?:carbox)?amides?$|[a-z]carboxamide$", AMIDE),
    ("amide", "lipopeptide", r"lipopeptide$", AMIDE),
    # Peptides
    ("peptide", "{n} residues", rf"(?<![a-z]){_N}peptide$", f"{AMIDE}>={{n-1}}"),
    ("peptide", "cyclic peptide", r"cyclic peptide$|cyclodepsipeptide$", "[#6;R](=O)[#7;R]>=2 ringsize>=6"),
    ("peptide", "peptide", r"peptide(?: (?:cation|zwitterion|antibiotic))?$", f"{AMIDE}"),
    # Alcohols
    ("alcohol", "catechol", r"catechols?$", "[OX2H1,OX1-]c1c([OX2H1,OX1-])cccc1"),
    ("alcohol", "resorcinol", r"resorcinols?$", "[OX2H1,OX1-]c1cc([OX2H1,OX1-])ccc1"),
    ("alcohol", "hydroquinone", r"(?<![a-z])hydroquinones?$", "[OX2H1]c1ccc([OX2H1])cc1"),
    ("alcohol", "naphthol", r"(?<![a-z])naphthols?$", "[OX2H1]c1cccc2ccccc12|[OX2H1]c1ccc2ccccc2c1"),
    ("alcohol", "polyphenol", r"polyphenol$", "[OX2H1]c>=2"),
    ("alcohol", "phenol", r"(?<!bis)phenols?$|4'-hydroxyflavanones$|7-hydroxyisoflavones$", "[OX2H1]c"),
    ("alcohol", "guaiacol", r"(?<![a-z])guaiacols$", "[OX2]c1c(O[CH3])cccc1"),
    ("alcohol", "enol", r"(?<![a-z])enol$", "[OX2H1][#6]=,:[#6]"),
    ("alcohol", "hydroperoxide", r"hydroperoxide$", "[OX2H][OX2]"),
    ("alcohol", "peroxide", r"peroxide$", "[OX2][OX2]"),
    ("alcohol", "alpha-hydroxy ketone", r"alpha-hydroxy ketone$", "[OX2H1][CX4][CX3](=O)[#6]"),
    ("alcohol", "lactol", r"lactol$|cyclic hemiketal$|hemiacetal$|hemiketal$", "[OX2H1][CX4][OX2]"),
    ("alcohol", "allylic alcohol", r"(?<!homo)allylic alcohol$", "[OX2H1][CX4][#6]=,:[#6]"),
    ("alcohol", "benzyl alcohol", r"benzyl alcohols$", "c[CX4][OX2H1]"),
    ("alcohol", "primary alcohol", r"primary (?:\w+ )?alcohol$", "[CX4H2][OX2H1]|[CH3][OX2H1]"),
    ("alcohol", "secondary alcohol", r"secondary (?:\w+ )?alcohol$", "[#6][CX4H1]([OX2H1])[#6]"),
    ("alcohol", "tertiary alcohol", r"tertiary (?:\w+ )?alcohol$", "[CX4H0;!$(C([OX2H1])[OX2H1])][OX2H1]"),
    ("alcohol", "{n} alcohol groups", r"(?<![a-z])(?P<n>di|tri|tetr|pent|hex)ol$", "[OX2H1][#6;!$(C=O)]>={n}"),
    ("alcohol", "alcohol", r"alcohol$|(?<![a-z])glycol$", ALCOHOL),
    # Amines and ammonium ions
    ("amine", "tertiary amine", r"tertiary amin(?:e|o compound)$", "[NX3H0;!$(N[C,S]=[O,S])]([#6])([#6])[#6]"),
    ("amine", "secondary amine", r"secondary amin(?:e|o compound)$", "[NX3H1;!$(N[C,S]=[O,S])]([#6])[#6]"),
    ("amine", "primary amine", r"primary amin(?:e|o compound)$|primary arylamine$", "[NX3H2][#6]"),
    ("amine", "aniline", r"anilines?$", "c1ccccc1[NX3,NX4+]"),
    ("amine", "aromatic amine", r"aromatic amine$", "[#7]a"),
    ("amine", "quaternary ammonium", r"quaternary ammonium (?:ion|salt)$", "[NX4+]([#6])([#6])([#6])[#6]"),
    ("amine", "ammonium", r"(?<![a-z])ammonium ion(?: derivative)?$", "[#7+;!$([#7+][O-])]|[H+]"),
    ("amine", "ammonium", r"ammonium betaine$|amino[ -]acid zwitterion$", "[#7+]"),
    ("amine", "iminium", r"iminium (?:ion|salt)$", "[#7+]=,:[#6]"),
    ("amine", "pyridinium", r"pyridinium (?:ion|salt)$", "[n+]1ccccc1"),
    # Ketones and aldehydes
    ("carbonyl", "enone", r"(?<![a-z])enone$", "[#6]=,:[#6]-,:[#6](=O)[#6]"),
    ("carbonyl", "enal", r"(?<![a-z])enal$", "C=C[CX3H1]=O"),
    ("carbonyl", "benzaldehyde", r"benzaldehydes$", "c1ccccc1[CX3H1]=O"),
    ("carbonyl", "aldehyde", r"(?<!semi)(?<!oxo )aldehyde$", "[CX3H1](=O)[#6]|[CX3H2]=O"),
    ("carbonyl", "acetophenone", r"acetophenones$", "c1ccccc1C(=O)[CX4]"),
    ("carbonyl", "benzophenone", r"benzophenones$", "c1ccccc1C(=O)c1ccccc1"),
    ("carbonyl", "quinone", r"(?:p-|benzo|anthra|naphtho)quinones?$",
     "O=[#6]1~[#6]~[#6]~[#6](=O)~[#6]~[#6]~1|O=[#6]1~[#6](=O)~[#6]~[#6]~[#6]~[#6]~1"),
    ("carbonyl", "beta-diketone", r"beta-diketone$", "[#6]C(=O)[#6]C(=O)[#6]|[#6]C(=O)[#6]=C([OH])[#6]"),
    ("carbonyl", "alpha-diketone", r"alpha-diketone$", "[#6]C(=O)C(=O)[#6]"),
    ("carbonyl", "cyclic ketone", r"cyclic (?:\w+ )?ketone$", "[#6;R][#6;R](=O)[#6;R]"),
    ("carbonyl", "aromatic ketone", r"aromatic ketone$", "[#6][#6](=O)[#6] a"),
    ("carbonyl", "methyl ketone", r"methyl ketone$", "[CH3]C(=O)[#6]"),
    ("carbonyl", "ketone", r"ketone$", "[#6][#6](=O)[#6]"),
    ("carbonyl", "oxo steroid", r"\d-oxo[ -](?:Delta\(\S+\)[ -]|5\w+-)?steroid$", f"{STEROID} [#6]=[OX1]"),
    # Ethers
    ("ether", "epoxide", r"epoxide$|epoxy steroid$", "C1OC1"),
    ("ether", "aromatic ether", r"aromatic ether$", "c[OX2][#6]"),
    ("ether", "enol ether", r"enol ether$", "C=C[OX2][#6]"),
    ("ether", "acetal", r"(?<!hemi)(?<!thio)(?<!ketene )(?:acetal|ketal)$", "[OX2]([#6])[CX4][OX2][#6]"),
    ("ether", "cyclic ether", r"cyclic ether$|(?<![a-z])oxacycle$", "[#8;R]([#6;R])[#6;R]"),
    ("ether", "{n} ethers", r"(?<![a-z])(?P<n>di|poly)ether$", "[OX2]([#6;!$(C=O)])[#6;!$(C=O)]>={n}"),
    ("ether", "silyl ether", r"silyl ether$", "[Si]O"),
    ("ether", "ether", r"(?<![a-zO]-)(?<![a-z])ether$", "[#8X2]([#6])[#6]"),
    # Other nitrogen
    ("nitrogen", "nitrile", r"nitrile$", "[CX2]#[NX1]"),
    ("nitrogen", "isocyanide", r"isocyanide$", "[C-]#[N+]"),
    ("nitrogen", "C-nitro", r"C-nitro compound$|(?<![a-z])nitro(?:benzenes?|phenols|toluenes)$", "[#6][N+](=O)[O-]"),
    ("nitrogen", "oxime", r"oxime(?: O-ether)?$", "C=N[OX2,OX1-]"),
    ("nitrogen", "hydrazone", r"hydrazone$", "C=NN"),
    ("nitrogen", "hydrazide", r"hydrazide$", "C(=O)NN"),
    ("nitrogen", "azo", r"azobenzenes$|azo compound$", "[#6]N=N[#6]"),
    ("nitrogen", "azide", r"(?<![a-z])azide$", "N=[N+]=[N-]"),
    ("nitrogen", "N-oxide", r"(?:amine oxide|N-oxide)s?$", "[#7+][OX1-]"),
    ("nitrogen", "isothiocyanate", r"isothiocyanate$", "N=C=S"),
    # Sulfur
    ("sulfur", "sulfone", r"sulfone$", "[#6]S(=O)(=O)[#6]"),
    ("sulfur", "sulfoxide", r"sulfoxide$", "[#6][SX3](=O)[#6]"),
    ("sulfur", "disulfide", r"disulfide$", "[SX2][SX2]"),
    ("sulfur", "sulfide", r"(?<![a-z])sulfide$|thioether$", "[#6][SX2][#6]"),
    ("sulfur", "thiol", r"(?<![a-z])thiol$", "[SX2H1]"),
    ("sulfur", "sulfate", r"(?:aryl|alkyl|steroid|oligosaccharide|monosaccharide|carbohydrate) sulfate$",
     "OS(=O)(=O)[OX2,OX1-]"),
    # Phosphorus
    ("phosphorus", "thiophosphate", r"(?<![a-z])(?:organic |organo)thiophosphate(?: insecticide)?$", "P=S|PS|P[S-]"),
    ("phosphorus", "phosphocholine", r"phosphocholines?$|phosphatidylcholine[ \d:]*$", "[PX4]OCC[NX4+](C)(C)C"),
    ("phosphorus", "phosphoethanolamine", r"phosphoethanolamine$", "[PX4]OCC[#7]"),
    ("phosphorus", "{n} phosphates", r"-(?P<n>mono|di|tri)phosphate$", "P(~O)(~O)(~O)~O>={n}"),
    ("phosphorus", "phosphate",
     r"(?<![a-z])(?:organic |glycosyl |dialkyl |trialkyl |aryl )?phosphate(?: insecticide)?$", "P(~O)(~O)(~O)~O"),
    ("phosphorus", "coenzyme A", r"coa(?:\(\d-\)| oxoanion)?$", "SCCNC(=O)CCNC(=O)C(O)C(C)(C)COP>=1 c1ncnc2ncnc12"),
    # Unsaturation
    ("unsaturation", "alkyne", r"acetylenic compound$", "C#C"),
    ("unsaturation", "alkene", r"(?<![a-z])olefinic compound$|(?<![a-z])olefin$", "C=C"),
)

WHOLE: tuple[Row, ...] = (
    # Charge
    ("charge", "net charge {signed}", r"\((?P<signed>\d[+-])\)$", "charge=={signed}"),
    ("charge", "net charge -2", r"(?<![a-z])dianion$", "charge<=-2"),
    ("charge", "net charge -3", r"(?<![a-z])trianion$", "charge<=-3"),
    ("charge", "net charge -4", r"(?<![a-z])tetraanion$", "charge<=-4"),
    ("charge", "negative", r"anion$", "charge<=-1"),
    ("charge", "net charge 2", r"(?<![a-z])dication$", "charge==2"),
    ("charge", "positive", r"(?<![a-z])cation$|ammonium ion(?: derivative)?$|(?:pyridin|imin|guanidin)ium ion$",
     "charge>=1"),
    ("charge", "zwitterion", r"zwitterion$|betaine$", "[+] [-]"),
    # Salts
    ("salt", "chlorine", r"hydrochloride(?: salt)?$|(?<![a-z])chloride salt$|organic chloride$", "[Cl]"),
    ("salt", "bromine", r"hydrobromide(?: salt)?$|(?<![a-z])bromide salt$", "[Br] fragments>=2"),
    ("salt", "iodine", r"(?<![a-z])iodide salt$", "[I] fragments>=2"),
    ("salt", "sodium", r"(?<![a-z])sodium salt$", "[Na]"),
    ("salt", "potassium", r"(?<![a-z])potassium salt$", "[K]"),
    ("salt", "calcium", r"(?<![a-z])calcium salt$", "[Ca]"),
    ("salt", "hydrate", r"(?<!aldehyde )(?<!ketone )(?<![a-z])(?:mono|di|tri|tetra|penta|hexa|hepta)?hydrate$",
     "[OX2H2] fragments>=2"),
    # Elements
    ("element", "fluorine", r"organofluorine|fluorinated|fluoro(?!quinolone|ne|phore|chrome|met)|trifluoromethyl",
     "[F]"),
    ("element", "chlorine", r"organochlorine|chlorinated|chloro(?!phyll)", "[Cl]"),
    ("element", "bromine", r"organobromine|brominated|bromo", "[Br]"),
    ("element", "iodine", r"organoiodine|iodinated|iodo", "[I]"),
    ("element", "halogen", r"organohalogen", "[F,Cl,Br,I]"),
    ("element", "sulfur", r"organosulfur", "[#16]"),
    ("element", "phosphorus", r"organophosph|phosphorus", "[#15]"),
    ("element", "silicon", r"organosilicon", "[Si]"),
    ("element", "arsenic", r"organoarsenic|arsenical", "[As]"),
    ("element", "mercury", r"mercury", "[Hg]"),
    ("element", "tin", r"organotin", "[Sn]"),
    # Groups in the names of classes: "a 3beta-hydroxy steroid", "an oxo monocarboxylic acid"
    ("prefix", "{n} hydroxy", rf"(?<![a-z]){_OR_MONO}hydroxy(?=[ -]|steroid|flav|fatty|indole|benz)",
     f"{HYDROXY}>={{n}}"),
    ("prefix", "oxo", r"(?<![a-z])oxo(?=[ -](?:steroid|fatty|mono|di|tri|carb|5|Delta))", "[#6][#6](=O)[#6]|[CX3H1]=O"),
    ("prefix", "amino", r"(?<![a-z])(?:di)?amino (?=acid|alcohol|di|tri|mono|sugar|ketone|ald)", "[#7]"),
    ("prefix", "methoxy", r"(?<![a-z])methoxy", "[#6][OX2][CH3]"),
    ("prefix", "sulfo", r"(?<![a-z])sulfo(?=[ -])", "S(=O)(=O)[OX2,OX1-]"),
    # Rings, counted
    ("ring count", "ring system of {n} rings",
     r"(?:hetero|carbo)(?P<n>bi|tri|tetra|penta|hexa|hepta|octa)cyclic compound$", "fused>={n}"),
    ("ring count", "ring system of {n} rings", r"(?<![a-z])(?P<n>bi|tri|tetra|penta|hexa)cyclic (?:\w+)$",
     "fused>={n}"),
    ("ring count", "heterocycle", r"heterocyclic (?:compound|antibiotic)$|heteromonocyclic compound$", "[!#6;R]"),
    ("ring count", "ring", r"(?<![a-z])(?:carbo|poly|mono)?cyclic (?:compound|ketone|ether)$", "rings>=1"),
    ("ring count", "macrocycle", r"macrocycle$", "ringsize>=9"),
    ("ring count", "bridged rings", r"bridged compound$|polycyclic cage$", "[R2,R3,R4]>=2"),
    ("ring count", "spiro", r"spiro(?: compound|-epoxide|ketal)$", "[x4]"),
    # Carbons
    ("carbon count", "{n} carbons", r"(?<![a-z])c(?P<n>\d+)[- ](?:steroid|dicarboxylic acid|dicarboxylate)$",
     "carbons=={n}"),
    ("carbon count", "{n} carbons", r"(?<![a-z])(?P<n>one)-carbon compound$", "carbons=={n}"),
    ("carbon count", "13 carbons or more",
     r"(?<!very )(?<!very-)(?<!ultra-)(?<!ultra )long-chain fatty acid(?: anion)?$", "carbons>=13"),
    ("carbon count", "6 to 20 carbons", r"medium-chain fatty acid(?: anion)?$", "carbons>=6 carbons<=20"),
    ("carbon count", "23 carbons or more", r"(?:very |ultra-)long-chain fatty acid(?: anion)?$", "carbons>=23"),
    ("carbon count", "20 carbons", r"(?<![a-z])icosanoid(?: anion)?$|(?<![a-z])leukotriene(?: anion)?$", "carbons>=20"),
    ("carbon count", "22 carbons", r"(?<![a-z])docosanoid(?: anion)?$", "carbons>=22"),
    ("carbon count", "18 carbons", r"(?<![a-z])octadecanoid(?: anion)?$", "carbons>=18"),
    # Sugars
    ("carbohydrate", "{n} sugar rings", rf"(?<![a-z]){_N}saccharide$", "sugars>={n}"),
    ("carbohydrate", "{n} sugar rings", r"(?<![a-z])gluco(?P<n>tri|tetra|penta)ose$", "sugars>={n}"),
    ("carbohydrate", "beta-D-glucoside", r"beta-d-glucosid(?:e|uronic acid)$", GLUCOSIDE),
    ("carbohydrate", "glycoside", r"glycoside$|saponin$|galactoside$|rhamnoside$|alpha-d-glucoside$|glucuronide$",
     "sugars>=1"),
    ("carbohydrate", "amino sugar ring", r"amino (?:mono|di|tri|tetra|penta|hexa|hepta|octa|nona|oligo)saccharide$",
     "[#7][#6;R][#6;R]~[#8;R] sugars>=1"),
    # Configuration
    ("chirality", "an R centre", r"(?<![a-z])\(?r\)?[- ](?:enantiomer|stereoisomer)$", "R>=1"),
    ("chirality", "an S centre", r"(?<![a-z])\(?s\)?[- ](?:enantiomer|stereoisomer)$", "S>=1"),
    ("chirality", "L-alpha-amino acid", r"(?<![a-z])l-alpha-amino acid$", "[#7][C@@H]([#6])C(=O)[#8]"),
    ("chirality", "D-alpha-amino acid", r"(?<![a-z])d-alpha-amino acid$", "[#7][C@H]([#6])C(=O)[#8]"),
    ("chirality", "chiral", r"(?<![a-z])[dl]-enantiomer$|(?<![a-z])[dl]-alpha-amino", "chiral==1"),
)
# fmt: on

_NUMBER = r"(?:(?P<n>two|three|four|five|six|an?)\s)?(?:(?:additional|extra|further|single|geminal)\s)?"
# fmt: off
_GROUPS = {
    "hydroxy": HYDROXY, "oxo": "[#6,#7,#16,#15]=[OX1]", "methoxy": "[#6][OX2][CH3]", "amino": "[#6][NX3,NX4+]",
     "nitro": "[N+](=O)[O-]",
    "cyano": "C#N", "chloro": "[Cl]", "fluoro": "[F]", "bromo": "[Br]", "iodo": "[I]", "methyl": "[#6,#7,#8,#16][CH3]",
    "ethyl": "[CH2][CH3]", "carboxy": ACID_OR_BASE, "phenyl": "c1ccccc1", "benzyl": "[CH2]c1ccccc1",
     "acetyl": "[CH3]C=O",
    "acetoxy": "[CH3]C(=O)O", "formyl": "[CX3H1]=O", "trifluoromethyl": "C(F)(F)F", "isopropyl": "[CH3][CX4][CH3]",
    "prenyl": "CC(C)=CC", "hydroxymethyl": "[CH2][OX2H1]", "sulfo": "S(=O)(=O)[OX2H1,OX1-]",
     "acetylamino": "[CH3]C(=O)[#7]",
    "acetamido": "[CH3]C(=O)[#7]", "dimethylamino": "[CH3]N[CH3]", "carbamoyl": "[#7]C=O",
     "phospho": PHOSPHATE, "benzoyl": "c1ccccc1C=O",
}
SUBSTITUENTS: tuple[Row, ...] = tuple(
    ("substituent", f"{{n}} {name}",
     rf"(?:(?<=\s)|^){_NUMBER}{re.escape(name)}(?=\s(?:group|substituent|residue|moiet|" rf"and\s\w+\sgroup))",
     f"{pattern}>={{n}}")
    for name, pattern in _GROUPS.items()
)
# fmt: on
