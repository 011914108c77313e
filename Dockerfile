# The command line in a container: docker build -t lightning-icl . && docker run lightning-icl compare --task tiny-sst2
FROM python:3.11-slim
WORKDIR /app
COPY setup.cfg pyproject.toml constraints.txt README.md LICENSE ./
COPY lightning_icl lightning_icl
COPY checkpoints checkpoints
RUN pip install --no-cache-dir --constraint constraints.txt '.[plot]' && useradd --create-home researcher
USER researcher
WORKDIR /home/researcher
ENTRYPOINT ["lightning-icl"]
CMD ["--help"]
