FROM mambaorg/micromamba:1.5-jammy AS build
COPY --chown=$MAMBA_USER:$MAMBA_USER env.yaml /tmp/env.yaml
RUN micromamba install -y -n base -f /tmp/env.yaml && \
    micromamba clean --all --yes

FROM continuumio/miniconda3:24.1.2-0
COPY environment.yml .
RUN conda env create -f environment.yml \
    && conda clean -afy
RUN useradd --create-home app
USER app
WORKDIR /home/app
COPY --chown=app:app service ./service
ENTRYPOINT ["conda", "run", "--no-capture-output", "-n", "service", "python", "-m", "service"]
