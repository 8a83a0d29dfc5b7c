"""Put some evidence and claims into a running service, and verify them: python scripts/seed.py http://127.0.0.1:8000"""

import argparse

import httpx2

EVIDENCE = (
    ("The Moon is made of rock, with a small core of iron.", "an encyclopedia"),
    ("Garlic does not cure the flu.", "a medical journal"),
    ("Ottawa is the capital of Canada.", "an atlas"),
    ("Bats are mammals that can fly.", "a field guide"),
)
CLAIMS = (
    "The Moon is made of cheese.",
    "Garlic cures the flu.",
    "The capital of Canada is Ottawa.",
    "Trams were invented by otters.",
)


def main() -> None:
    """Send everything; print the verdicts, or the reason why there are none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000")
    # The first text loads the model, where there is one.
    with httpx2.Client(base_url=parser.parse_args().url, timeout=300) as client:
        for text, source in EVIDENCE:
            client.post("/evidence", json={"text": text, "source": source}).raise_for_status()
        for text in CLAIMS:
            claim = client.post("/claims", json={"text": text}).raise_for_status().json()["id"]
            answer = client.post(f"/claims/{claim}/verify").json()
            said = f"{answer['label']} ({answer['confidence']:.2f})" if "label" in answer else answer["detail"]
            print(f"{claim}. {text} {said}")


if __name__ == "__main__":
    main()
