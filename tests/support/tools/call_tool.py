"""Run in the environment of another backend: loads a tool, runs calls on picture files, writes JSON.

Reads {"tool", "backend", "options", "calls": [{"image": path, ...}]} from standard input.
"""

import json
import sys

from thinkimg.errors import UserError
from thinkimg.image import Image
from thinkimg.tools.registry import load_tool


def main() -> None:
    request = json.load(sys.stdin)
    try:
        tool = load_tool(request["tool"], request["backend"], request["options"])
    except UserError as error:
        print(json.dumps({"refused": str(error)}))
        return
    results = [
        tool.run({**call, "image": "img_1"}, {"img_1": Image.from_file(call["image"])}).data
        for call in request["calls"]
    ]
    print(json.dumps({"details": tool.details, "results": results}))


if __name__ == "__main__":
    main()
